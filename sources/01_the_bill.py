# %% [markdown]
# # The bill: where the bytes, the FLOPs and the dollars go
#
# Before you save, you need the bill. This lesson derives it line by line on the small GPT, checks
# every line against a measurement, and ends with the price of Llama-2-70B. About 75 minutes; no
# GPU needed.
#
# 1. [Bytes that stay](#1.-Bytes-that-stay)
# 2. [Sixteen, eighteen or twenty?](#2.-Sixteen,-eighteen-or-twenty?)
# 3. [Bytes that come and go](#3.-Bytes-that-come-and-go)
# 4. [The peak, predicted](#4.-The-peak,-predicted)
# 5. [Where the FLOPs go](#5.-Where-the-FLOPs-go)
# 6. [Seconds](#6.-Seconds)
# 7. [Dollars](#7.-Dollars)
# 8. [When it does not pay](#8.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell makes `utils` importable:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# We take the laptop preset in plain fp32, with explicit attention: the textbook version, which
# writes its weights to memory, so that nothing is hidden in a fused kernel. It reads real text:

# %%
from dataclasses import replace

import torch

from utils.config import PRESETS, GPTConfig
from utils.corpus import load_corpus
from utils.model import build_gpt, next_token_loss
from utils.timing import use_one_thread

use_one_thread()
config = replace(PRESETS["laptop"], attention="explicit")
batch_size, num_tokens = 8, config.context_length
corpus = load_corpus()
tokens_BT, targets_BT = corpus.batch(0, batch_size, num_tokens)

# %% [markdown]
# ## 1. Bytes that stay
#
# A number in fp32 takes 4 bytes. The naive bill says: memory = 4 bytes x parameters. What does the
# model hold after one whole training step with Adam?

# %%
from utils.costs import count_parameters

num_parameters = count_parameters(config).total
guess_bytes = 4 * num_parameters  # the naive bill; change it if you know better

# %% [markdown]
# The meter follows every tensor from its first byte to its last, and sorts them by purpose. We
# stop right before the gradients are dropped:

# %%
from utils.memory import MemoryMeter
from utils.predictions import reveal

model = build_gpt(config)
optimizer = torch.optim.AdamW(model.parameters())
with MemoryMeter(model, optimizer) as meter:
    next_token_loss(model, tokens_BT, targets_BT).backward()
    optimizer.step()
    meter.mark("end of step")
held = meter.report().at_mark("end of step")
held_bytes = held["parameters"] + held["gradients"] + held["optimizer state"]
reveal("Held at the end of a step", guess_bytes, held_bytes, "bytes")

# %% [markdown]
# Four times the naive bill. Who holds what, per parameter?

# %%
from utils.measured import table

kept = ("parameters", "gradients", "optimizer state")
rows = [(name, held[name], f"{held[name] / num_parameters:.2f}") for name in kept]
table(["what", "bytes", "bytes per parameter"], rows, "What stays, in fp32 with Adam")

# %% [markdown]
# Weights 4, gradients 4, and Adam's two running averages 8: **16 bytes per parameter**. The few
# hundredths above 4 are the causal masks of explicit attention, one table of booleans a block.
# Nothing here depends on the batch.
#
# ## 2. Sixteen, eighteen or twenty?
#
# Mixed precision keeps 16-bit weights for the arithmetic. Does that halve the bill? Papers and
# posts say 16, 18 or 20 bytes per parameter, for the same recipe. Instead of believing one, run
# it: a bf16 model, and an fp32 *master copy* that Adam updates. What differs is only how long the
# two kinds of gradients live. Keep both, drop each bf16 gradient once it is converted, or convert,
# update and drop one tensor at a time:

# %%
import copy

def master_step(keep):
    """One Adam step on fp32 masters of a bf16 model; returns bytes held per parameter."""
    masters = build_gpt(replace(config, attention="fused"))
    working, before = copy.deepcopy(masters).bfloat16(), copy.deepcopy(masters)
    adam = torch.optim.AdamW(masters.parameters())
    with MemoryMeter(masters, working, adam) as meter:
        next_token_loss(working, tokens_BT[:1, :16], targets_BT[:1, :16]).backward()
        for weight, master in zip(working.parameters(), masters.parameters(), strict=True):
            master.grad = weight.grad.float()
            if keep == "fp32 gradients":
                weight.grad = None
            if keep == "bf16 gradients":
                adam.step()  # only this tensor has a gradient, so only this one is updated
                master.grad = None
        if keep != "bf16 gradients":
            adam.step()
        meter.mark("updated")
    pairs = zip(before.parameters(), masters.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in pairs), "the masters must change"
    held = meter.report().at_mark("updated")
    return (held["parameters"] + held["gradients"] + held["optimizer state"]) / num_parameters

# %% [markdown]
# Write down your three guesses, then look:

# %%
for keep in ("bf16 gradients", "fp32 gradients", "both gradients"):
    print(f"{keep}: {master_step(keep):.2f} bytes per parameter")

# %% [markdown]
# All three figures are right: 2 + 4 for the weights, 8 for Adam, and 2, 4 or 6 for the gradients.
# **None is below fp32's 16.** Mixed precision copies the weights; it does not halve them. What it
# does save comes later. Which of these bills fits on which chip, before a single activation is
# stored?

# %%
from utils.explorers import recipe_explorer

recipe_explorer()

# %% [markdown]
# ## 3. Bytes that come and go
#
# Backward needs what forward computed: to get the gradient of a weight, its layer's *input* must
# still exist. Take one block and write down what each operation keeps, in units of B x T x D
# values (D is the width, F = 4D):
#
# | operation | keeps | values |
# |---|---|---|
# | two norms | their inputs | 2 |
# | three linear layers from width D | their inputs | 3 |
# | attention | queries, keys, values | 3 |
# | GELU, and the narrowing layer | their inputs, F wide | 4 + 4 |
#
# That is 16 BTD. To it come two numbers per token and norm (mean and 1/deviation), and the
# attention weights after softmax: H x T per token. As a function, the one that the course itself
# uses:

# %%
from utils.predict import qkv_width

# show: utils.predict.block_activation_bytes

# %% [markdown]
# What does it say for our block, and what does autograd really keep? `saved_for_backward` lists
# every tensor with the layer that asked for it:

# %%
from utils.saved import saved_for_backward

saved = saved_for_backward(model, lambda: next_token_loss(model, tokens_BT, targets_BT))
block = [tensor for tensor in saved if tensor.layer.startswith("blocks.1.")]
rows = [(t.layer.removeprefix("blocks.1."), str(t.shape), t.num_bytes) for t in block]
table(["layer", "shape", "bytes"], rows, "What the second block keeps for its backward pass")

# %% [markdown]
# Does the pencil agree with autograd?

# %%
predicted = block_activation_bytes(config, batch_size, num_tokens)
found = sum(tensor.num_bytes for tensor in block)
print(f"predicted {predicted:,} bytes, found {found:,} bytes, equal: {predicted == found}")

# %% [markdown]
# To the byte. Now watch the whole step. Where will the peak be: in forward, in backward, or in the
# optimizer?

# %%
from utils.memory_plot import plot_timeline
from utils.plots import new_figure, show

def metered_step():
    with MemoryMeter(model, optimizer) as meter:
        loss = next_token_loss(model, tokens_BT, targets_BT)
        meter.mark("backward")
        loss.backward()
        meter.mark("optimizer")
        optimizer.step()
        optimizer.zero_grad()
    return meter.report()

optimizer.zero_grad()
report = metered_step()

# %% [markdown]
# Each event is a tensor that came or went:

# %%
figure = new_figure(height=3.8)
plot_timeline(figure.subplots(), report)
share = report.peak_by_category["saved activations"] / report.peak_bytes
show(figure, "One training step, byte by byte",
     f"Activations pile up through forward and make {share:.0%} of the peak of "
     f"{report.peak_bytes:,} bytes, which comes right after backward starts.")

# %% [markdown]
# The hill is what *activation checkpointing* will flatten (lesson 04). The plateau below it is what
# ZeRO and FSDP will cut into slices (lessons 07 and 08). How does the hill grow with batch and
# context, on models that do not fit here?

# %%
from utils.explorers import activation_explorer

activation_explorer()

# %% [markdown]
# ## 4. The peak, predicted
#
# To predict the peak, follow the step and add up what is alive at the moments that can be the
# highest. Two of them by hand. When the loss runs backward, everything saved is still there, and
# the
# gradient of the log-probabilities and then that of the logits appear: two more tensors of B x T
# x V
# values. In the optimizer all activations are gone, but all gradients exist, and Adam makes a
# square root and a quotient of one tensor at a time:

# %%
from utils.predict import adam_scratch_bytes, mask_buffer_bytes, saved_activation_bytes

held_bytes = 12 * num_parameters + mask_buffer_bytes(config)  # weights and Adam, and the masks
logit_bytes = 4 * batch_size * num_tokens * config.vocab_size
in_loss = held_bytes + saved_activation_bytes(config, batch_size, num_tokens) + 2 * logit_bytes
batch_bytes = 2 * 8 * batch_size * num_tokens  # tokens and targets, int64
in_optimizer = held_bytes + batch_bytes + 4 * num_parameters + adam_scratch_bytes(config)
print(f"loss backward: {in_loss:,} bytes, optimizer: {in_optimizer:,} bytes")

# %% [markdown]
# `predict_step` adds three more: the last block's feed-forward layer and its attention, and the
# first block, when most activations are gone but most gradients exist. Does it agree?

# %%
from utils.predict import predict_step

prediction = predict_step(config, batch_size)
rows = [(name, size, "<- peak" if name == prediction.peak_moment else "")
        for name, size in prediction.moments.items()]
table(["moment", "predicted live bytes", ""], rows, "Five moments of one step")

# %% [markdown]
# Four configurations whose peaks lie at different moments. How well can a pencil do, in percent?

# %%
guess_percent = 20  # your prediction: the largest error of the four, in percent

# %% [markdown]
# Each is built, trained for one step, and measured in the second one, when Adam's state exists:

# %%
from utils.memory import measure_memory

def measured_peak(config, batch_size):
    model = build_gpt(config)
    adam = torch.optim.AdamW(model.parameters())
    batch = corpus.batch(0, batch_size, config.context_length)

    def step():
        next_token_loss(model, *batch).backward()
        adam.step()
        adam.zero_grad()

    step()
    return measure_memory(step, model, adam).peak_bytes

# %% [markdown]
# A wide batch, a long text, a single sequence, and a model that is large for its batch:

# %%
trials = {
    "laptop, batch 16": (PRESETS["laptop"], 16),
    "512 tokens, explicit": (GPTConfig(2, 4, 64, 512, attention="explicit"), 1),
    "laptop, batch 1": (PRESETS["laptop"], 1),
    "wide, 16 tokens": (replace(PRESETS["laptop-wide"], context_length=16), 1),
}
peaks = {name: (predict_step(*trial), measured_peak(*trial)) for name, trial in trials.items()}

# %% [markdown]
# Prediction against meter:

# %%
errors = {name: abs(p.peak_bytes / found - 1) for name, (p, found) in peaks.items()}
rows = [(name, p.peak_moment, p.peak_bytes, found, f"{errors[name]:.2%}")
        for name, (p, found) in peaks.items()]
headers = ["configuration", "peak at", "predicted", "by the meter", "error"]
table(headers, rows, "Peak bytes of a step")
reveal("Largest error", guess_percent, 100 * max(errors.values()), "%")

# %% [markdown]
# Within a tenth of a percent, without running anything. What remains are a few scalars and the
# gradients of small vectors, which the pencil leaves out.
#
# ## 5. Where the FLOPs go
#
# A linear layer with N weights does N multiplications and N additions per token: 2N FLOPs. Backward
# does two such products, one for the input's gradient and one for the weight's. Together **6N per
# token**. The rule ignores attention's T x T products and counts embeddings that only look up. Is
# the exact count the same as torch's own?

# %%
from torch.utils.flop_counter import FlopCounterMode

from utils.costs import flops_by_part, rule_of_thumb_flops, training_flops

with FlopCounterMode(display=False) as counter:
    next_token_loss(model, tokens_BT, targets_BT).backward()
model.zero_grad()
ours = training_flops(config, batch_size, num_tokens)
theirs = counter.get_total_flops()
print(f"torch: {theirs:,}  ours: {ours:,}  equal: {theirs == ours}")

# %% [markdown]
# How far is 6ND from the truth, and who does the work, from laptop to Llama?

# %%
def flops_row(name):
    config = PRESETS[name]
    tokens = config.context_length
    parts = flops_by_part(config, tokens)
    exact = sum(parts.values())
    shares = [f"{parts[part] / exact:.0%}" for part in parts]
    return [name, *shares, f"{rule_of_thumb_flops(count_parameters(config).total, 1) / exact:.2f}"]

names = ("laptop", "gpt2-124m", "llama2-7b-shape", "llama2-70b-shape")
headers = ["model, full context", "feed-forward", "projections", "scores", "output", "6ND / exact"]
table(headers, [flops_row(name) for name in names], "Share of the training FLOPs")

# %% [markdown]
# In these four, the rule is 7 to 13 % too low: the scores that it ignores weigh more than the
# embeddings that it counts although they only look up.
#
# ## 6. Seconds
#
# A chip's peak is what it does in one large matrix product. *MFU* is the share of it that training
# turns into useful FLOPs. The naive version trains on one sequence, the better version on eight.
# What MFU do you expect from each?

# %%
guess_mfu = 0.9  # your prediction for the batch of eight

# %% [markdown]
# Both run in turn on this one core, then the core multiplies two 1024 x 1024 matrices:

# %%
from utils.costs import mfu
from utils.timing import compare, matmul_flops_per_s

def step_of(batch_size):
    batch = corpus.batch(0, batch_size, num_tokens)
    return lambda: next_token_loss(model, *batch).backward()

timed = compare({"one": step_of(1), "eight": step_of(8)}, repeats=7)
peak_flops_per_s = matmul_flops_per_s()
model.zero_grad()

# %% [markdown]
# The measured MFU of each:

# %%
from utils.measured import measured, measured_where

def mfu_of(name, batch_size):
    flops = training_flops(config, batch_size, num_tokens)
    return mfu(flops, timed.timings[name].median_s, peak_flops_per_s)

print("Peak:", measured(peak_flops_per_s / 1e9, "GFLOP/s"), measured_where())
print("MFU with one sequence:", measured(mfu_of("one", 1), digits=2))
reveal("MFU with eight", guess_mfu, mfu_of("eight", 8), is_measured=True)

# %% [markdown]
# What is missing to 1 went into work that nobody counts (norms, softmax, GELU, copies) and into
# waiting between operations. Did eight together beat one alone, in seconds per sequence? The
# quartiles of the rounds decide, not a single run:

# %%
per_sequence = timed.per({"one": 1, "eight": 8})
print("Eight against one, per sequence:", measured(per_sequence.sentence("eight", "one")))

# %% [markdown]
# ## 7. Dollars
#
# The article that this course grew from ("The economics of GPUs: How to train your AI model without
# going broke", VentureBeat, August 2024) says that Llama-2-70B needed "at least 1e24" FLOPs. Its
# model card says 2 trillion tokens and 1,720,320 hours of A100. What do 6ND and the exact count
# say?

# %%
llama = PRESETS["llama2-70b-shape"]
thumb = rule_of_thumb_flops(70e9, 2e12)
exact = training_flops(llama, 1, 4096) / 4096 * 2e12
print(f"6ND: {thumb:.2e}   with attention: {exact:.2e}   below 1e24: {exact < 1e24}")
print(f"1e24 overstates by {1e24 / exact - 1:.0%} to {1e24 / thumb - 1:.0%}")

# %% [markdown]
# So the article's "at least" is wrong, if not by much. (6ND takes the published 70 billion, the
# exact
# count our model of Llama's shape.) Turned around, the hours tell how well the GPUs were used. What
# was the MFU?

# %%
guess_llama_mfu = 0.9  # your prediction

# %% [markdown]
# The hours are cited (Llama 2 model card), the rest is arithmetic:

# %%
from utils.prices import find_chip, find_training_run

run = find_training_run("Llama-2-70B")
a100_peak = find_chip("A100 80GB").peak_flops("bf16")
reveal("MFU by 6ND", guess_llama_mfu, mfu(thumb, run.gpu_hours * 3600, a100_peak))
print(f"MFU by the exact count: {mfu(exact, run.gpu_hours * 3600, a100_peak):.1%}")
print(f"1e24 FLOPs at the rate of 6ND: {run.gpu_hours * 1e24 / thumb:,.0f} hours of A100")

# %% [markdown]
# What would those hours cost today? Prices differ by provider, by day and by kind. Every row of the
# course's table has a source and a date; each product counts with its newest one. The last row is
# what AWS asked when the article appeared:

# %%
from datetime import date

from utils.plots import usd_text
from utils.prices import load_rental_prices, price_spread, rent_usd

def price_row(price):
    rent = rent_usd(run.gpu_hours, price.usd_per_gpu_hour)
    age = measured("over a year" if price.is_old(date.today()) else "under a year")
    hour = f"{price.usd_per_gpu_hour:.2f}"
    return price.provider, price.sku, str(price.date), age, hour, usd_text(rent)

spread = price_spread("A100 80GB")
then = [row for row in load_rental_prices()
        if row.chip == "A100 80GB" and row.kind == "on-demand" and str(row.date) == "2024-08-03"]
headers = ["provider", "what", "read on", "age today", "$ per hour", "Llama-2-70B"]
table(headers, [price_row(row) for row in (*spread.rows, *then)], "Rent of 1,720,320 A100 hours")
print(f"Today's spread: {spread.high / spread.low:.1f} times")

# %% [markdown]
# Not every row could do this job: a single community GPU has no fast link to two thousand others.
# But among those that can, the price differs more than most techniques of this course save. The
# explorer prices any run on H100s. Three levers: price, MFU, tokens. Which one is yours to move?

# %%
from utils.explorers import dollars_explorer

dollars_explorer()

# %% [markdown]
# Rent or buy? A purchased GPU must also be fed with electricity. After how many hours of *use* is
# an H100 cheaper than a rented one, at the cheapest and the dearest of today's on-demand prices?

# %%
from utils.prices import (
    break_even_hours,
    energy_kwh,
    load_electricity_prices,
    load_purchase_prices,
)

h100 = find_chip("H100 SXM")
bought = next(row for row in load_purchase_prices() if row.chip == h100.name)
power = next(row for row in load_electricity_prices() if row.customer == "commercial")
h100_spread = price_spread("H100 SXM", kind="on-demand")
print(f"bought for {usd_text(bought.usd_per_gpu)} ({bought.sku}, read {bought.date})")
for usd in (h100_spread.low, h100_spread.high):
    hours = break_even_hours(bought.usd_per_gpu, usd, h100.tdp_w, power.usd_per_kwh)
    print(f"rented at ${usd:.2f}: {hours:,.0f} hours, {hours / 8760:.1f} years without a pause")

# %% [markdown]
# And electricity itself? For Llama-2-70B, the boards alone, without hosts and cooling:

# %%
energy = energy_kwh(run.gpu_hours, run.watts_per_gpu)
low, high = (rent_usd(run.gpu_hours, row.usd_per_gpu_hour) for row in (spread.rows[0], then[0]))
energy_usd = energy * power.usd_per_kwh
print(f"{energy / 1000:,.0f} MWh: {usd_text(energy_usd)} at ${power.usd_per_kwh:.3f} per kWh")
print(f"at least {energy_usd / high:.1%} to {energy_usd / low:.1%} of the rent, which contains it")

# %% [markdown]
# Energy is a small part. The article names the hardware as the cost, not the people. Epoch's
# estimate puts research staff at 29 to 49 % of a frontier model's cost (arXiv 2405.21015; recalled,
# unverified): for a new model people are not negligible.

# %% [markdown]
# ## 8. When it does not pay
#
# - **Saving bytes** does not pay when everything fits and a larger batch would not be faster.
#   Predict
#   first: bytes only help through what you do with them.
# - **Buying** does not pay below the break-even hours, and idle hours do not count as use.
# - **A higher MFU** pays only if the FLOPs were needed: an algorithm that learns the same with
#   fewer
#   tokens beats every trick in this course (lesson 11).

# %% [markdown]
# ## Takeaways
#
# - fp32 with Adam holds 16 bytes per parameter; mixed precision holds 16, 18 or 20, never 8.
# - A block keeps 16 values per token and width, and explicit attention H x T more per token.
# - The peak can be predicted to a fraction of a percent, and the meter proves it.
# - 6ND is some 10 % low for these models; by it Llama-2-70B took 8.4e23 FLOPs at 43.5 % MFU.
# - On one day, the same GPU costs two and a half times as much at one place as at another.
#
# **Next:** [lab 01](../labs/lab_01_the_bill.ipynb), then lesson 02, mixed precision.
