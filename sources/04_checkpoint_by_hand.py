# %% [markdown]
# # Checkpoint by hand: forget, and run again
#
# Most of a training step's memory is there for one reason: backward will ask for it. Activation
# checkpointing throws it away and computes it again when it is due. Here you write it twice, prove
# it equal to torch's to the last bit, predict its peak to the byte, and settle what it costs. About
# 80 minutes; no GPU needed.
#
# 1. [The bill of keeping](#1.-The-bill-of-keeping)
# 2. [Naive: a loop that runs again](#2.-Naive:-a-loop-that-runs-again)
# 3. [Better: an autograd.Function](#3.-Better:-an-autograd.Function)
# 4. [The order of work, and two traps](#4.-The-order-of-work,-and-two-traps)
# 5. [Better still: hooks that stop early](#5.-Better-still:-hooks-that-stop-early)
# 6. [Equal, bit for bit](#6.-Equal,-bit-for-bit)
# 7. [The hill, flattened](#7.-The-hill,-flattened)
# 8. [How many segments?](#8.-How-many-segments?)
# 9. [FLOPs, seconds, and the article](#9.-FLOPs,-seconds,-and-the-article)
# 10. [What the room buys](#10.-What-the-room-buys)
# 11. [When it does not pay](#11.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# The laptop preset with explicit attention, as in lesson 01, on four sequences of real text:

# %%
from dataclasses import replace
from functools import partial

import torch

from utils.config import PRESETS, GPTConfig
from utils.corpus import load_corpus
from utils.costs import training_flops
from utils.measured import measured, measured_where, table
from utils.model import build_gpt, next_token_loss
from utils.plots import new_figure, show
from utils.predictions import reveal
from utils.timing import use_one_thread

use_one_thread()
config, batch_size = replace(PRESETS["laptop"], attention="explicit"), 4
batch = load_corpus().batch(0, batch_size, config.context_length)

# %% [markdown]
# ## 1. The bill of keeping
#
# Lesson 01 listed what a block keeps for backward: inputs of its linear layers, queries, keys and
# values, attention weights, both sides of the GELU. All of it was computed from one tensor, the
# block's input, so the input is *enough*: whoever has it can have everything else again, for the
# price of a forward run. How many times its input does a block keep?

# %%
guess_ratio = 5  # your prediction

# %% [markdown]
# The input itself is among what is kept:

# %%
from utils.predict import block_activation_bytes

kept_bytes = block_activation_bytes(config, batch_size, config.context_length)
input_bytes = 4 * batch_size * config.context_length * config.model_dim
print(f"kept by one block: {kept_bytes:,} bytes, its input: {input_bytes:,} bytes")
reveal("Kept, in units of the input", guess_ratio, kept_bytes / input_bytes, "times")

# %% [markdown]
# So keep one byte of twenty. The idea is old: reverse-mode differentiation with *checkpoints*, from
# which the rest is recomputed. Chen et al. brought it to deep networks (2016, arXiv 1604.06174).
#
# ## 2. Naive: a loop that runs again
#
# Cut the model into a chain of functions: embedding, blocks, loss. Forward keeps each one's input
# in a list. Backward takes them from the end: run the layer once more, this time for its gradients,
# and hand the input's gradient to the layer below:

# %%
def step_by_loop(layers, x, first_run):
    """Forward and backward that keep the layers' inputs only."""
    inputs, gradient = [], torch.ones(())
    with first_run():
        for layer in layers:
            inputs.append(x)
            x = layer(x)
    while inputs:
        x = inputs.pop().detach()
        x.requires_grad_(x.is_floating_point())  # tokens have no gradient
        layers[len(inputs)](x).backward(gradient)
        gradient = x.grad

# %% [markdown]
# A first attempt calls the layers as always. Nothing but the inputs is in our list, and everything
# else goes out of scope. The second one says `torch.no_grad`. What is the peak of each, as a share
# of the plain step's?

# %%
from utils.checkpoint_steps import peak_and_gradients
from utils.techniques.chain import gpt_chain

model, (tokens_BT, targets_BT) = build_gpt(config), batch
plain = partial(next_token_loss, model, *batch)
plain_peak, gradients = peak_and_gradients(lambda: plain().backward(), model)
for first_run in (torch.enable_grad, torch.no_grad):
    step = partial(step_by_loop, gpt_chain(model, targets_BT), tokens_BT, first_run)
    peak, found = peak_and_gradients(step, model)
    equal = torch.equal(found, gradients)
    print(f"{first_run.__name__}: {peak / plain_peak:.0%} of the peak, gradients equal: {equal}")

# %% [markdown]
# The first attempt saves *nothing*; it even costs more. Python has forgotten the tensors, but
# autograd has not: each layer's output carries a graph, and the graph holds all that backward could
# need. Only `no_grad`, or a `detach`, ends it. With that, half of the peak is gone, and every
# gradient is the same to the last bit. Is it finished? One thing more: dropout.

# %%
shaky = build_gpt(replace(config, dropout=0.1))
plain = partial(next_token_loss, shaky, *batch)
_, gradients = peak_and_gradients(lambda: plain().backward(), shaky)
step = partial(step_by_loop, gpt_chain(shaky, targets_BT), tokens_BT, torch.no_grad)
print("gradients equal:", torch.equal(peak_and_gradients(step, shaky)[1], gradients))

# %% [markdown]
# The second run drew other random numbers, so it dropped other values: these gradients belong to
# another function than the one whose loss we saw. No error, no warning. And the loop has taken the
# place of `backward()`, so it fits no model that is not a chain.
#
# ## 3. Better: an autograd.Function
#
# An `autograd.Function` is an operation with a backward of our own, so checkpointing can live
# *inside* any model. It is called in place of a layer, with whatever arguments the layer takes:

# %%
from collections.abc import Callable
from typing import Any

from utils.techniques.checkpointing import _RunTwice
from utils.techniques.replay import Call, Rest, join

# show: utils.techniques.checkpointing.checkpoint_by_function without docstring

# %% [markdown]
# A `Call` takes the tensors out of the arguments and notes the state of the random generators and
# of autocast (`ReplayState`). Inside of `forward` gradients are off, so no graph grows. What it
# gives to `save_for_backward` is all that stays:

# %%
from torch import Tensor

from utils.techniques.replay import kind_of, ran_otherwise, split

# show: utils.techniques.checkpointing._RunTwice.forward

# %% [markdown]
# Backward makes fresh inputs (the `detach` of the loop), puts the random numbers back, runs the
# layer with gradients on, and goes through that graph:

# %%
from utils.techniques.checkpointing import _require_plain_backward

# show: utils.techniques.checkpointing._RunTwice.backward

# %% [markdown]
# Models run their blocks by a *plan*: a nested tuple, in which a part in brackets keeps only its
# input and runs again. With brackets around each block, and dropout on:

# %%
from utils.checkpoint_steps import step_by
from utils.techniques.segments import segments

each_block = segments([1] * config.num_layers)
step = partial(step_by, shaky, batch, each_block, checkpoint_by_function)
print("plan:", each_block)
print("gradients equal:", torch.equal(peak_and_gradients(step, shaky)[1], gradients))

# %% [markdown]
# ## 4. The order of work, and two traps
#
# Layers that say when they work make the order visible. Three of them: plain, with a checkpoint
# around each, one around all, and one within another. What will be different?

# %%
from utils.echo import order_of_work

for plan in ((0, 1, 2), ((0,), (1,), (2,)), ((0, 1, 2),), (((0, 1), 2),)):
    print(f"{plan}: {order_of_work(plan, checkpoint_by_function)}")

# %% [markdown]
# With a checkpoint around each, a layer runs again right before its own backward, and only one
# layer's tensors exist at a time. One around all brings everything back at once: the plain peak,
# only later. Nested brackets run the first two layers three times.
#
# **Trap one: random numbers.** Torch replays them too, unless somebody finds the flag that saves
# some time:

# %%
from torch.utils.checkpoint import checkpoint

for preserve in (True, False):
    by_torch = partial(checkpoint, use_reentrant=False, preserve_rng_state=preserve)
    _, found = peak_and_gradients(partial(step_by, shaky, batch, each_block, by_torch), shaky)
    print(f"preserve_rng_state={preserve}: gradients equal: {torch.equal(found, gradients)}")

# %% [markdown]
# **Trap two: inputs without a gradient.** Autograd calls a Function's backward only if one of its
# inputs asks for a gradient. The first layer's input is data, and behind a frozen embedding, it is
# as good as data. What happens to the layer's own weights?

# %%
import warnings

from torch import nn

def report_gradients(name, checkpoint):
    layer, head = nn.Linear(4, 4), nn.Linear(4, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head(checkpoint(layer, torch.ones(2, 4))).sum().backward()
    has = [module.weight.grad is not None for module in (layer, head)]
    print(f"{name}: layer has gradients: {has[0]}, head: {has[1]}, warnings: {len(caught)}")

report_gradients("torch's Function version", partial(checkpoint, use_reentrant=True))
report_gradients("ours", checkpoint_by_function)

# %% [markdown]
# Training goes on, the layer's weights never change, and a warning is all you see. Ours passes an
# `anchor` along, an empty tensor that asks for a gradient, so that backward is always called.
#
# ## 5. Better still: hooks that stop early
#
# The Function's second run is a whole one, though no backward asks for the result of a block's last
# product. The other version lets forward build its graph, but hooks replace each tensor that the
# graph would save by a *ticket*:

# %%
from contextlib import AbstractContextManager

from torch.autograd.graph import saved_tensors_hooks

from utils.techniques.checkpointing import _Frame

# show: utils.techniques.checkpointing.checkpoint_with without docstring

# %% [markdown]
# `pack` is called when something is saved, `unpack` when backward turns the ticket in:

# %%
import weakref

from utils.techniques.checkpointing import NO_BACKWARD, _Ticket

# show: utils.techniques.checkpointing._Frame.pack

# show: utils.techniques.checkpointing._Frame.unpack

# %% [markdown]
# The first ticket makes the function run again. Hooks collect what it saves, in the same order as
# before; with the last of them, an exception ends the run then and there:

# %%
from itertools import count

from utils.techniques.checkpointing import _AllBack

# show: utils.techniques.checkpointing._Frame._run_again

# %% [markdown]
# Nobody sees the exception but the line that waits for it. Since the graph is a real one, this
# version also works with `torch.autograd.grad`, second derivatives, and inputs without gradients.
#
# ## 6. Equal, bit for bit
#
# Now the proof: plain, ours and torch's, on the model with dropout. Bytes are the meter's, FLOPs
# those of torch's counter, and every bit of every gradient is compared with the plain step's:

# %%
from utils.checkpoint_steps import PARITY_HEADERS, parity_rows

rows = parity_rows(shaky, batch, each_block)
table(PARITY_HEADERS, rows, "One step, beside weights and gradients")

# %% [markdown]
# Ours are torch's, in every byte, FLOP and bit. The Function's peak is a little higher: it holds
# the output of the block that runs again. And the hooks did *not* stop early here: with dropout a
# block saves its last mask after its last product. Without dropout they will.
#
# ## 7. The hill, flattened
#
# Now a model whose activations outweigh its weights: the preset `laptop-deep`, 16 blocks of width
# 64, explicit attention, 16 sequences. The bill is a whole training step with Adam; weights,
# gradients and optimizer state are in it. What share of its peak will disappear?

# %%
guess_percent = 50  # your prediction

# %% [markdown]
# A pencil is enough. `utils/predict_layers.py` writes down what comes and goes in each layer,
# operation by operation, and a plan puts the layers together:

# %%
from utils.predict_checkpoint import predict_checkpointed_step

deep, deep_batch = replace(PRESETS["laptop-deep"], attention="explicit"), 16
plans = {"plain": tuple(range(16)), "checkpointed": segments([1] * 16)}
predicted = {name: predict_checkpointed_step(deep, deep_batch, plans[name]) for name in plans}
for name, prediction in predicted.items():
    print(f"{name}: {prediction.peak_bytes:,} bytes in {prediction.peak_moment}")

# %% [markdown]
# Now both steps under the meter, with gradients in place, as between micro-batches:

# %%
from utils.checkpoint_steps import AdamStep

step = AdamStep(build_gpt(deep), load_corpus().batch(0, deep_batch, deep.context_length))
reports = {name: step.metered(plan) for name, plan in plans.items()}
share = 1 - reports["checkpointed"].peak_bytes / reports["plain"].peak_bytes
print("to the byte:", *(reports[n].peak_bytes == predicted[n].peak_bytes for n in plans))
reveal("Of the peak disappear", guess_percent, 100 * share, "%")

# %% [markdown]
# Over the events of one step, on one axis:

# %%
from utils.memory_plot import plot_totals

figure = new_figure(height=3.8)
plot_totals(figure.subplots(), reports)
peaks = [f"{report.peak_bytes:,} bytes" for report in reports.values()]
show(figure, "One step, plain and checkpointed", f"The plain step climbs to {peaks[0]}; the "
     f"checkpointed one to {peaks[1]}, in small teeth, one for each block that runs again.")

# %% [markdown]
# The plateau at the bottom is weights, gradients and Adam. The slow climb of the teeth is what is
# still kept: one input for each block.
#
# ## 8. How many segments?
#
# A segment may be several blocks: fewer inputs to keep, more to hold while a segment runs again.
# For L blocks in k equal segments, with h bytes of input and a bytes saved by a block, the peak is
# about k h + (L / k) a. That is least at $k = \sqrt{L a / h}$. For 24 thin blocks, which k is best?

# %%
guess_segments = 5  # your prediction; the textbook's answer is the root of 24

# %% [markdown]
# The exact prediction for every k, in no time, and the rule:

# %%
from utils.predict_layers import block_cost
from utils.techniques.segments import even_lengths

thin = GPTConfig(24, 1, 32, 32, 32, ff_dim=8)
cuts = {k: segments(even_lengths(24, k)) for k in range(1, 25)}
sgd = {k: predict_checkpointed_step(thin, 4, plan, state_values=0) for k, plan in cuts.items()}
by_pencil = {k: prediction.peak_bytes for k, prediction in sgd.items()}
best, block = min(by_pencil, key=by_pencil.get), block_cost(thin, 4, 32)
reveal("Best number of segments", guess_segments, best)
print(f"by the rule: {(24 * block.saved_bytes / block.output_bytes) ** 0.5:.1f}")

# %% [markdown]
# The root of 24 would be right if a layer saved no more than its input; even these slim ones save
# eight times as much. Does the meter agree, for *every* number of segments?

# %%
from utils.memory_plot import plot_segments
from utils.techniques.checkpointing import checkpoint_by_hooks

thin_model, thin_batch = build_gpt(thin), [part % 32 for part in load_corpus().batch(0, 4, 32)]
steps = {k: partial(step_by, thin_model, thin_batch, plan, checkpoint_by_hooks)
         for k, plan in cuts.items()}
by_meter = {k: peak_and_gradients(each, thin_model)[0] for k, each in steps.items()}
print("equal for all", len(cuts), "numbers:", by_meter == by_pencil)
figure = new_figure(height=3.4)
plot_segments(figure.subplots(), by_pencil, by_meter, sgd[1].held_bytes)
show(figure, "Segments of 24 blocks", f"The peak falls from one segment to {best} and rises again, "
     "with a step down wherever the longest segment becomes a block shorter.")

# %% [markdown]
# And an honest remark. A usual GPT block saves 15 to 30 times its input, so the rule asks for more
# segments than there are blocks, unless there are more than 15 to 30 of them. **For usual depths,
# one block to a segment is best.** The choice is free: any k runs every block twice. (Better than
# equal segments is possible: lesson 05.)
#
# ## 9. FLOPs, seconds, and the article
#
# Gradient checkpointing, says the article, is "keeping computations to an absolute minimum".
# Forward is a third of a step's FLOPs, so running everything again adds up to 33 %. What does
# torch's counter say, and the pencil?

# %%
from utils.predict_checkpoint import recomputed_flops

useful, full = training_flops(deep, deep_batch, 128), plans["checkpointed"]
for by, early_stop in ((checkpoint_by_function, False), (checkpoint_by_hooks, True)):
    again = recomputed_flops(deep, deep_batch, 128, full, early_stop)
    counted = step.flops(full, by) == useful + again
    print(f"{by.__name__}: {again / useful:+.1%} FLOPs, by torch's counter: {counted}")

# %% [markdown]
# The opposite of a minimum. 4/3 is the upper bound: the output layer never runs twice, and the
# early stop leaves out each block's last product, a fourth of its work.
#
# And the clock? Five ways in turn on this core, Adam included, against the plain step and against
# torch's:

# %%
from utils.checkpoint_steps import CHECKPOINTS
from utils.timing import compare

ways = {"plain": partial(step, plans["plain"])}
ways |= {name: partial(step, full, by) for name, by in CHECKPOINTS.items()}
timed = compare(ways, repeats=5, warmup=1)
names = list(CHECKPOINTS)  # ours, torch's, ours, torch's
rows = [(name, measured(timed.sentence(name, "plain"))) for name in names]
rows += [(f"{ours} / {torchs}", measured(timed.sentence(ours, torchs)))
         for ours, torchs in zip(names[::2], names[1::2], strict=True)]
table(["way", "time"], rows, "A step of laptop-deep")
print("plain:", measured(timed.timings["plain"].median_s, "s"), measured_where())

# %% [markdown]
# The course's own target was 80 % of the peak for at most a quarter more time. One idle core of an
# Intel Xeon (fp32, 2026-11-24) met it with 1.20 times the plain step, and missed it with fused
# attention: 1.32 times, because that plain step is a third faster. Seconds need not follow FLOPs:
# memory that the plain step asks the system for anew costs time, too, on some machines so much that
# the checkpointed step, which uses its few megabytes over and over, is the *faster* one.
#
# Work that is done twice keeps a chip busy without training anything. So there are two measures:
# *MFU* counts the model's FLOPs only, *HFU* also those done twice:

# %%
from utils.costs import hfu, mfu
from utils.timing import matmul_flops_per_s

peak_flops_per_s = matmul_flops_per_s()
for name, more in (("plain", 0), ("ours, hooks", again)):
    run = timed.timings[name].median_s, peak_flops_per_s
    print(f"{name}: MFU {measured(mfu(useful, *run))}, HFU {measured(hfu(useful, more, *run))}")

# %% [markdown]
# HFU stays, MFU pays. Ask for MFU when somebody quotes a utilisation: Megatron's 530-billion model
# reached 42.1 % with full recomputation and 54.2 % with selective (Korthikanti et al. 2022, arXiv
# 2205.05198).
#
# The article promises "up to 70 %" less memory for "15-25 %" more time. Who measured what, and what
# have we?

# %%
from utils.checkpoint_table import CITED, CITED_HEADERS

saved, flops = f"{share:.1%} of the peak", f"{again / useful:.1%} FLOPs"
clock = measured(f"{timed.ratio('ours, hooks', 'plain') - 1:+.0%} time")
ours = ("full, laptop-deep, whole step", saved, flops, "this lesson")
rows = [*CITED, ours, ("", "", clock, "this core")]
table(CITED_HEADERS, rows, "Whose numbers?")
print("at least 80 % of the peak saved:", share >= 0.8)

# %% [markdown]
# So "70 %" is *selective* checkpointing, whose cost is a tenth of what the article says, and
# "15-25 %" brackets *full* checkpointing, which saves more than it says. The sentence mixes two
# techniques; no source of its pair of numbers was found. Lesson 05 builds the selective one. Other
# machines, as recorded by `make record`:

# %%
from utils.checkpoint_table import RECORDED_HEADERS, recorded_rows
from utils.recorded import load_recorded, show_recorded

runs = load_recorded("checkpointing")
kinds = [run.kind for run in runs]
show_recorded("Recorded: full checkpointing against none", RECORDED_HEADERS,
              recorded_rows(runs), kinds)

# %% [markdown]
# ## 10. What the room buys
#
# Bytes are worth what you do with them. How many sequences of laptop-deep fit into 256 MiB, weights
# and Adam included? The pencil answers without a run. And a billion tokens on this core, in
# electricity (30 watts assumed, as in lesson 00)?

# %%
from utils.experiments.plan_table import batch_row
from utils.predict_checkpoint import largest_predicted_batch
from utils.prices import load_electricity_prices

power = next(row for row in load_electricity_prices() if row.customer == "residential")
rows = []
for name, way in (("plain", "plain"), ("checkpointed", "ours, hooks")):
    fits = largest_predicted_batch(deep, plans[name], 256 * 2**20)
    tokens_per_s = deep_batch * 128 / timed.timings[way].median_s
    rows.append((name, fits, *batch_row(tokens_per_s, power)))
headers = ["step", "sequences in 256 MiB", "tokens per second", "a billion tokens"]
table(headers, rows, "laptop-deep; tokens per second with 16 sequences")

# %% [markdown]
# Nine times the batch. Room alone makes no token cheaper, but on rented chips memory has a price.
# GPT-2 with 1.5 billion weights in fp32, TF32 products and fused attention, at each chip's cheapest
# on-demand price; 40 % MFU are assumed for the plain step, and second FLOPs come on top:

# %%
from utils.checkpoint_table import RENT_HEADERS, rent_row

chips = ("RTX 4090", "A100 40GB", "A100 80GB", "H200")
rows = [rent_row(chip, PRESETS["gpt2-1.5b"]) for chip in chips]
table(RENT_HEADERS, rows, "GPT-2 1.5B: sequences that fit, and rent of a million tokens")

# %% [markdown]
# The 4090's 24 GB do not hold the weights, gradients and Adam, which no checkpoint shrinks. On the
# same chip a checkpointed token costs a fifth more. What it buys is the *choice*: whoever needs
# eight sequences at once pays less on the small A100 with checkpoints than on the large one
# without.
#
# ## 11. When it does not pay
#
# The pencil again, whole steps with Adam. How much of the peak disappears in each case?

# %%
from utils.checkpoint_table import SAVED_HEADERS, saved_row

rows = [saved_row("laptop-wide, 1 sequence of 16", PRESETS["laptop-wide"], 1, 16),
        saved_row("GPT-2 1.5B, 1 sequence", PRESETS["gpt2-1.5b"], 1),
        saved_row("laptop-deep, fused, 16 sequences", PRESETS["laptop-deep"], 16),
        *(saved_row(f"laptop-deep, explicit, {size}", deep, size) for size in (16, 1))]
table(SAVED_HEADERS, rows, "Peak bytes of a step")

# %% [markdown]
# - **Weights and optimizer dominate** (the first two rows): there is little or nothing to save.
#   ZeRO is the cure, lessons 07 and 08.
# - **Fused attention** (third row against fourth) takes 30 % off the plain peak, without a single
#   FLOP. Fuse first; what is left saves less.
# - **The batch can be accumulated** (last row): sixteen micro-batches of one sequence, *plain*, need
#   less than sixteen sequences checkpointed, and no FLOP twice. Checkpoint when one sequence does
#   not fit, or when small micro-batches leave the chip idle.

# %% [markdown]
# ## Takeaways
#
# - A layer's input is enough: keep it, forget the rest, run again for backward.
# - Without `no_grad` or `detach` nothing is saved; without the random state gradients are wrong.
# - Full checkpointing adds up to a third more FLOPs, a quarter with early stop: never a minimum.
# - The best number of segments is the root of L a / h; for usual GPTs, one per block.
# - The article's 70 % is selective, its 15-25 % full checkpointing; ours saves 83 % of the peak.
#
# **Next:** [lab 04](../labs/lab_04_checkpoint_by_hand.ipynb), then
# [lesson 05](05_choosing_what_to_keep.ipynb): choosing what to keep.
