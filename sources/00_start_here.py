# %% [markdown]
# # Start here: train a GPT, and read its bill
#
# In about half an hour you train a small language model on real text, on this very machine, and
# find out what that cost. No GPU, no download, no account.
#
# 1. [Your machine](#1.-Your-machine)
# 2. [How this course works](#2.-How-this-course-works)
# 3. [The text and the model](#3.-The-text-and-the-model)
# 4. [Train it](#4.-Train-it)
# 5. [What did that cost?](#5.-What-did-that-cost?)
# 6. [A first saving: the batch](#6.-A-first-saving:-the-batch)
# 7. [When it does not pay](#7.-When-it-does-not-pay)
# 8. [Labs, checks and hints](#8.-Labs,-checks-and-hints)

# %% [markdown]
# Every notebook starts with this cell. It lets Python find the course's folder `utils`, wherever
# you opened the notebook from:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# ## 1. Your machine
#
# What is this computer, and can it run the course? The same check runs from a terminal as
# `python -m utils.check_env`. Read the lines that say `[FAIL]`, if any; each one names its cure:

# %%
from utils.check_env import findings
from utils.measured import measured_text

found = findings()
measured_text("This machine", "\n".join(str(finding) for finding in found))
print("Ready for the course:", all(finding.status != "FAIL" for finding in found))

# %% [markdown]
# One more setting: **one thread per process**, because one core plays the part of one GPU in this
# course. It also makes time honest: while the course was written (shared two-core x86 machine,
# float32, November 2026) the time of one step varied sixfold with two threads, and by a tenth with
# one. So every notebook says:

# %%
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## 2. How this course works
#
# Each lesson repeats three moves.
#
# - **Predict** a number before you see it. A wrong guess is worth more than a number just read.
# - **Measure** it on this machine.
# - **Read** the difference: it is where the understanding is.
#
# Numbers come in three kinds. A *computed* number is the same on every machine. A *measured*
# number belongs to your machine and stands between two ⏱ marks. A *cited* number carries its
# source and date. Try it: how many seconds does your machine need to add up ten million ones?

# %%
guess_s = 1.0  # your prediction: change it, then run this cell and the next one

# %% [markdown]
# A guess is compared with the truth by `reveal`, which never judges:

# %%
import torch

from utils.predictions import reveal
from utils.timing import time_step

ones = torch.ones(10_000_000)
reveal("Adding ten million ones", guess_s, time_step(ones.sum).median_s, "s", is_measured=True)

# %% [markdown]
# ## 3. The text and the model
#
# The training text is already on your disk: the source code of Python's standard library. It is
# real text by many authors, and nothing has to be downloaded. One byte is one token, so the
# vocabulary is the 256 possible bytes:

# %%
from utils.corpus import load_corpus
from utils.measured import measured

corpus = load_corpus()
print("Bytes to train on:", measured(len(corpus.train_N)))
print("Bytes kept for validation:", measured(len(corpus.validation_N)))

# %% [markdown]
# Your own text works too: `load_corpus("my_book.txt")`. A batch is a stack of random windows of
# the text. What the model reads is `tokens`; what it shall predict, `targets`, is the same window
# one byte later:

# %%
tokens_BT, targets_BT = corpus.batch(number=0, batch_size=8, context_length=128)
print("tokens:", tuple(tokens_BT.shape), " targets:", tuple(targets_BT.shape))
print("shifted by one:", torch.equal(tokens_BT[:, 1:], targets_BT[:, :-1]))
measured_text("The first window", bytes(tokens_BT[0].tolist()).decode("utf-8", "replace"))

# %% [markdown]
# The suffix `_BT` tells the shape: B sequences of T tokens. The model is a GPT: embeddings, four
# blocks of attention and feed-forward layers, and a layer back to 256 bytes. One frozen config
# holds all of its choices:

# %%
from utils.config import PRESETS

config = PRESETS["laptop"]
print(config)

# %% [markdown]
# GPT-2's smallest member has 12 such blocks, each 768 wide, and 124 million parameters. Ours has
# 4 blocks, 128 wide. How many parameters is that?

# %%
guess_parameters = 10_000_000  # your prediction

# %% [markdown]
# The count follows from the config alone; the built model agrees to the last one:

# %%
from utils.costs import count_parameters
from utils.model import build_gpt

model = build_gpt(config)
num_parameters = count_parameters(config).total
reveal("Parameters", guess_parameters, num_parameters)
print("Exactly:", num_parameters, "- equal to the model's own:",
      num_parameters == sum(p.numel() for p in model.parameters()))

# %% [markdown]
# Width counts twice, because a layer is a width x width matrix: six times narrower is 36 times
# smaller, and three times fewer of them make the blocks 108 times smaller. Before any training
# the model finds all
# 256 bytes about equally likely. The loss of such a guess is the logarithm of 256, in *nats*:

# %%
import math

from utils.train import TrainingConfig, validation_loss

training = TrainingConfig(batch_size=8, context_length=128)
loss_before = validation_loss(model, corpus, training)
print(f"ln 256 = {math.log(256):.3f}, this model: {measured(loss_before)}")
print("As ignorant as it should be:", abs(loss_before - math.log(256)) < 0.1)

# %% [markdown]
# Let it write, byte after byte. What do you expect from a model that knows nothing?

# %%
from utils.train import sample_text

prompt = "def "
measured_text("Before training", sample_text(model, prompt, num_bytes=200))

# %% [markdown]
# ## 4. Train it
#
# Half a minute of training, watched live. How far can the loss fall from 5.55 in that time? For
# orientation: a model that only knew how frequent each byte is would stop at the entropy of the
# bytes:

# %%
share_V = torch.bincount(corpus.train_N.long(), minlength=256) / len(corpus.train_N)
entropy = -(share_V * share_V.clamp(min=1e-12).log()).sum()
print("Loss of the frequencies alone:", measured(entropy), "nats per byte")

# %% [markdown]
# Your model may do better, because it also sees what comes before. How much better?

# %%
guess_loss = 3.5  # your prediction: the validation loss after 30 seconds

# %% [markdown]
# The loop is plain: a batch, the loss, its gradients, one step of AdamW. Its budget is given in
# seconds, so every machine waits equally long and gets as far as it can. Drawing is not on the
# clock:

# %%
from utils.live import Live
from utils.train import train

with Live("Training loss in nats per byte") as live:
    run = train(model, corpus, training, seconds=30,
                report=lambda step, done, loss: live.log(step, done, loss=loss))
print("Steps:", measured(len(run.losses)), " Tokens:", measured(run.num_tokens))

# %% [markdown]
# What did half a minute buy?

# %%
loss_after = validation_loss(model, corpus, training)
reveal("Validation loss", guess_loss, loss_after, "nats per byte", is_measured=True)
print("The loss fell by more than 2 nats:", loss_before - loss_after > 2)

# %% [markdown]
# A loss of L nats means that the model hesitates between about $e^L$ bytes instead of 256. The
# difference shows in what it writes: indentation, words of the right length, here and there a
# keyword. It is no programmer yet. What does the continuation look like now?

# %%
print("It hesitates between", measured(math.exp(loss_after), digits=2), "bytes instead of 256.")
measured_text("After training", sample_text(model, prompt, num_bytes=400))

# %% [markdown]
# ## 5. What did that cost?
#
# Training is paid in three currencies: **bytes** (does it fit?), **seconds** (how long?) and
# **dollars**. The work itself is counted in FLOPs, floating-point operations. A rule of thumb,
# 6 FLOPs per parameter per token, and an exact count that includes attention:

# %%
from utils.costs import rule_of_thumb_flops, training_flops

flops_per_token = training_flops(config, batch_size=1, num_tokens=128) / 128
print(f"6ND: {rule_of_thumb_flops(num_parameters, 1):,.0f} FLOPs per token")
print(f"exact: {flops_per_token:,.0f} FLOPs per token")

# %% [markdown]
# Lesson 01 derives both (the exact count takes attention in full, not its causal half). How fast
# could this core be at best? A large matrix product shows its
# peak; the share of the peak that training reaches is the *model FLOPs utilisation*, MFU:

# %%
from utils.costs import mfu
from utils.timing import matmul_flops_per_s

peak_flops_per_s = matmul_flops_per_s()
utilisation = mfu(flops_per_token * run.num_tokens, run.seconds, peak_flops_per_s)
print("Peak of one core:", measured(peak_flops_per_s / 1e9, "GFLOP/s"))
print("Throughput:", measured(run.tokens_per_s, "tokens/s"))
print("MFU:", measured(f"{utilisation:.0%}"))

# %% [markdown]
# Now dollars. Say that a laptop under load draws 30 W. The rate is the US residential one from the
# course's dated table. What did 30 seconds of training cost in electricity?

# %%
guess_usd = 0.01  # your prediction, in dollars

# %% [markdown]
# The watts are an assumption; put in your own:

# %%
from utils.prices import energy_kwh, load_electricity_prices

rate = next(row for row in load_electricity_prices() if row.customer == "residential")
electricity_usd = energy_kwh(30 / 3600, watts=30) * rate.usd_per_kwh
print(f"{100 * rate.usd_per_kwh:.2f} cents per kWh (read {rate.date}: {rate.source})")
reveal("Electricity for 30 seconds", guess_usd, electricity_usd, "$")

# %% [markdown]
# A few thousandths of a cent look like nothing. So let us train something useful: GPT-2's 124
# million
# parameters on 10 billion tokens. How long would *this core* take, at the throughput in FLOPs that
# you just measured?

# %%
gpt2_flops = training_flops(PRESETS["gpt2-124m"], 1, 1024) / 1024 * 10e9
years = gpt2_flops / (utilisation * peak_flops_per_s) / 3600 / 24 / 365
print(f"GPT-2 124M on 10 billion tokens: {gpt2_flops:.3g} FLOPs")
print("On this core:", measured(years, "years", digits=2))

# %% [markdown]
# Now eight H100s. llm.c's published run of this size took 45 minutes on them (modded-nanogpt
# README, entry of 2024-05-28). What was its MFU, and what does it cost at one dated price, eight
# GPUs rented together?

# %%
from utils.prices import find_chip, price_spread, rent_usd

price = next(row for row in price_spread("H100 SXM").rows if row.sku.startswith("8x"))
hours = 8 * 45 / 60
h100_mfu = mfu(gpt2_flops, hours * 3600, find_chip("H100 SXM").peak_flops("bf16"))
print(f"{hours:.1f} GPU hours at an MFU of {h100_mfu:.0%}")
usd_per_hour, read_on = price.usd_per_gpu_hour, f"{price.provider}, read on {price.date}"
print(f"at ${usd_per_hour:.2f} an hour ({read_on}): ${rent_usd(hours, usd_per_hour):.0f}")

# %% [markdown]
# That is the question of this course: **which techniques make this number smaller, by how much,
# and what do they cost in return?**
#
# ## 6. A first saving: the batch
#
# Here is one saving already, to see the method at work. The *naive version* trains on one sequence
# at a time. The *better version* stacks several. Each product then has more rows, the core spends
# less time between products, and one optimizer step serves them all. What is the gain in tokens
# per second from 1 to 8 sequences?

# %%
guess_speedup = 8.0  # your prediction: times as many tokens per second

# %% [markdown]
# Both run in turn, round after round, so that a slow moment of the machine hits both; the answer
# is the median of the rounds:

# %%
from utils.model import next_token_loss
from utils.timing import compare

optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)  # the work of a step, but no change

def step_of(batch_size):
    batch = corpus.batch(0, batch_size, 128)
    def step():
        next_token_loss(model, *batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return step

timed = compare({size: step_of(size) for size in (1, 2, 4, 8, 16)}, repeats=5)
speedup = 8 * timed.timings[1].median_s / timed.timings[8].median_s
reveal("Tokens per second, batch 8 over batch 1", guess_speedup, speedup, "x", is_measured=True)

# %% [markdown]
# What does the batch cost in bytes? The course's meter follows every tensor of a step, exactly:

# %%
from utils.memory import measure_memory

peaks = {size: measure_memory(step_of(size), model, optimizer).peak_bytes
         for size in timed.timings}
per_sequence = (peaks[16] - peaks[8]) / 8
print(f"Peak with 1 sequence: {peaks[1]:,} bytes, with 16: {peaks[16]:,} bytes")
print(f"Each further sequence: {per_sequence:,.0f} bytes")

# %% [markdown]
# These bytes are no measurement with an error: they come out the same every time, so the course
# can check them. Move the slider to see both sides of the bargain, from your own runs:

# %%
from utils.explorers import batch_explorer

rates = {size: size * 128 / timing.median_s for size, timing in timed.timings.items()}
batch_explorer(peaks, rates)

# %% [markdown]
# ## 7. When it does not pay
#
# - **Beyond saturation.** Once the products are large enough to keep the core busy, a larger batch
#   buys little speed, but memory goes on growing in proportion.
# - **Fewer updates.** The same text in larger batches means fewer steps of the optimizer. Tokens
#   per second are not yet learning per second.
# - **Other machines.** The answer belongs to this core; a wider chip needs a larger batch to be
#   kept busy. The question stays the same.
#
# Does the first point hold on your machine? Compare the last doubling with the first one:

# %%
first = 2 * timed.timings[1].median_s / timed.timings[2].median_s
last = 2 * timed.timings[8].median_s / timed.timings[16].median_s
print("From 1 to 2 sequences:", measured(first, "x the tokens per second"))
print("From 8 to 16 sequences:", measured(last, "x the tokens per second"))
print("Memory for the last doubling:", f"{peaks[16] / peaks[8]:.2f}x")
print("Each doubling is paid with nearly twice the activations, whatever it buys.")

# %% [markdown]
# ## 8. Labs, checks and hints
#
# Each lesson has a lab in `labs/`, with its solution in `solutions/`. In a lab you complete
# functions. Right below each one stands a check that says one of four things: *not attempted yet*,
# *not yet* (what was expected, what came, the likely mistake), *your code raised*, or *passed*.
# Stuck? `hint("01.1")` gives a first hint, `hint("01.1", 2)` a second one. Before you start:

# %%
from utils.checks import check, progress

check("01.1", None)

# %% [markdown]
# To keep your answers apart from the course's files, run `make my-labs` once and work in
# `my-labs/`. Your progress is kept in one file that git ignores:

# %%
progress("lab_01")

# %% [markdown]
# ## Takeaways
#
# - Predict, measure, read: a number between ⏱ marks is yours, all others are the same everywhere.
# - Training is paid in bytes, seconds and dollars, and the work is counted in FLOPs.
# - A real model learns real text on one core in half a minute.
# - A bigger batch buys speed with memory, until the core is busy.
#
# **Next:** lesson 01, [the bill](01_the_bill.ipynb), takes the three currencies apart to the byte.
