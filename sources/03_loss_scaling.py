# %% [markdown]
# # Loss scaling, master weights, and APEX's four levels
#
# bf16 has fp32's range. fp16, all that a V100 or a T4 can multiply fast, has not: small gradients
# fall out of it, and small updates fall between its numbers. This lesson shows both losses on real
# gradients, writes both cures, and rebuilds O0 to O3 of APEX. In the bill these cures are small:
# one multiplication of the loss, one pass over the gradients, four bytes per parameter. Without
# them,
# half of mixed precision's savings cannot be had at all. About 75 minutes; no GPU needed.
#
# 1. [The bill of a missing exponent](#1.-The-bill-of-a-missing-exponent)
# 2. [Gradients under the microscope](#2.-Gradients-under-the-microscope)
# 3. [Naive: one scale for ever](#3.-Naive:-one-scale-for-ever)
# 4. [Better: a scale that finds itself](#4.-Better:-a-scale-that-finds-itself)
# 5. [Updates that vanish](#5.-Updates-that-vanish)
# 6. [O0, O1, O2, O3](#6.-O0,-O1,-O2,-O3)
# 7. [When it does not pay](#7.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# Real text and a small model. fp16 arithmetic on a processor is tens of times slower than fp32, so
# where only the *rounding* matters, values are rounded through fp16 instead of computed in it; the
# runs of section 6 compute in real fp16, on a model small enough:

# %%
import math

import torch

from utils.config import GPTConfig
from utils.corpus import load_corpus
from utils.measured import measured, table
from utils.model import build_gpt, next_token_loss
from utils.predictions import reveal
from utils.timing import use_one_thread
from utils.train import TrainingConfig, train

use_one_thread()
corpus = load_corpus()
config = GPTConfig(4, 4, 64, 64, 256)

# %% [markdown]
# ## 1. The bill of a missing exponent
#
# fp16 ends at 65504 and loses everything below $2^{-25}$, about 3e-8. A model's gradients are
# small, and they are smaller still when a large batch is cut into micro-batches, since each loss is
# then divided by their number. What share of the gradients does fp16 turn into zero, when a batch
# consists of 4096 micro-batches?

# %%
guess_percent = 1  # your prediction, in percent

# %% [markdown]
# First we need gradients worth looking at: 60 steps of training, then one backward pass of a loss
# that counts as one of 4096:

# %%
model = build_gpt(config)
train(model, corpus, TrainingConfig(8, 64), steps=60)
model.zero_grad()
next_token_loss(model, *corpus.batch(1000, 8, 64)).div(4096).backward()

# %% [markdown]
# Round every gradient through fp16, and count the nonzero ones that come back as zero:

# %%
gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
nonzero = gradients[gradients != 0]
lost = (nonzero.half() == 0).float().mean().item()
reveal("Turned into zero", guess_percent, 100 * lost, "%", is_measured=True)
print("More than a tenth is lost:", lost > 0.1)

# %% [markdown]
# ## 2. Gradients under the microscope
#
# Where do they lie? A histogram over binary exponents, with fp16's window drawn in:

# %%
from utils.gradient_histogram import draw_gradient_histogram, gradient_exponents, merge
from utils.plots import new_figure, show

layers = gradient_exponents(model)
counts = merge(layers.values())
figure = new_figure(height=3.6)
show(figure, "Gradients by exponent", draw_gradient_histogram(figure, counts))

# %% [markdown]
# Which layers suffer? The share that fp16 loses, and the share that it keeps with fewer bits
# (subnormal), layer by layer:

# %%
from utils.gradient_histogram import choose_scale, fp16_shares

def shares_row(name):
    shares = fp16_shares(layers[name])
    return name, measured(f"{shares.zero:.1%}"), measured(f"{shares.subnormal:.1%}")

names = [name for name in layers if "norm" not in name]
table(["layer", "lost", "subnormal"], [shares_row(name) for name in names], "What fp16 makes of it")

# %% [markdown]
# The cure is one multiplication. Gradients are linear in the loss: scale the loss by S, and every
# gradient is S times larger. What is the largest power of two at which none of these overflows?

# %%
guess_scale = 1024  # your prediction

# %% [markdown]
# It follows from the histogram alone: shift the whole picture to the right until the largest value
# touches the end of the window:

# %%
best = choose_scale(counts)
reveal("Largest safe scale", guess_scale, best, is_measured=True)

# %% [markdown]
# The same picture, shifted:

# %%
figure = new_figure(height=3.6)
show(figure, "Gradients by exponent, scaled", draw_gradient_histogram(figure, counts, best))
print("Less than a thousandth is lost now:", fp16_shares(counts, best).zero < 1e-3)

# %% [markdown]
# Try every scale. Where is the window between "too little" and "too much"?

# %%
from utils.precision_explorers import scale_explorer

scale_explorer(counts)

# %% [markdown]
# ## 3. Naive: one scale for ever
#
# A static scale is five lines: multiply the loss, divide the gradients, step. But gradients change
# during training; a scale that is safe today overflows tomorrow, or is too small the day after. And
# one overflow poisons everything:

# %%
victim = build_gpt(config)
sgd = torch.optim.SGD(victim.parameters(), lr=0.1)
next_token_loss(victim, *corpus.batch(0, 2, 64)).backward()
victim.output.weight.grad[0, 0] = float("inf")  # what one fp16 overflow leaves behind
sgd.step()
print("next loss finite:", bool(next_token_loss(victim, *corpus.batch(0, 2, 64)).isfinite()))

# %% [markdown]
# One bad number in one gradient, and the run is lost: every later loss is NaN, and no later step
# can repair it. So two things are needed: *look* before stepping, and *adapt* the scale.
#
# ## 4. Better: a scale that finds itself
#
# Looking costs a pass over every gradient, and so does unscaling. Both are done together, and the
# answer stays on the device, because asking for it would stop the processor:

# %%
from torch import Tensor
from torch.optim import Optimizer

# show: utils.techniques.loss_scaling.unscale_and_check_

# %% [markdown]
# The order matters: unscale *before* clipping, or the clip compares scaled gradients with an
# unscaled
# limit. And the rule of the scale: half after an overflow, double after a quiet window:

# %%
# show: utils.techniques.loss_scaling.DynamicScaler._adapt

# %% [markdown]
# Watch it look for its level. From 2^16 on gradients that overflow above 2^12, with a window of 20
# quiet steps, what will the scale do?

# %%
from utils.techniques.loss_scaling import DynamicScaler

def scale_history(scaler, limit, num_steps):
    """The scale after each step, when fp16 gradients overflow above `limit`."""
    weight = torch.nn.Parameter(torch.zeros(4))
    sgd, history = torch.optim.SGD([weight], lr=0.0), []
    for _ in range(num_steps):
        too_large = scaler.loss_scale > limit
        weight.grad = torch.full((4,), float("inf") if too_large else 1.0)
        scaler.step(sgd)
        scaler.update()
        history.append(scaler.loss_scale)
    return history

history = scale_history(DynamicScaler(growth_interval=20), limit=2.0**12, num_steps=100)

# %% [markdown]
# Drawn over the steps:

# %%
figure = new_figure(height=2.6)
axes = figure.subplots()
axes.step(range(100), history, where="post")
axes.set_yscale("log", base=2)
axes.set(xlabel="step", ylabel="loss scale", title="A scale that finds itself")
show(figure, "The scale over 100 steps", f"It falls from 65,536 to {min(history):,.0f} within "
     f"{history.index(min(history)) + 1} steps, and then knocks at the limit every 21 steps.")

# %% [markdown]
# Is it torch's rule? Ours against `torch.amp.GradScaler`, over random overflows, scale by scale:

# %%
def torch_history(overflows):
    theirs = torch.amp.GradScaler("cpu", growth_interval=5)
    weight = torch.nn.Parameter(torch.zeros(1))
    sgd, history = torch.optim.SGD([weight], lr=0.1), []
    for overflow in overflows:
        theirs.scale(weight.sum()).backward()
        weight.grad.fill_(float("inf") if overflow else 1.0)
        theirs.step(sgd)
        theirs.update()
        sgd.zero_grad()
        history.append(theirs.get_scale())
    return history

# %% [markdown]
# And ours:

# %%
def our_history(overflows):
    ours, weight = DynamicScaler(growth_interval=5), torch.nn.Parameter(torch.zeros(1))
    sgd, history = torch.optim.SGD([weight], lr=0.1), []
    for overflow in overflows:
        weight.grad = torch.full((1,), float("inf") if overflow else 1.0)
        ours.step(sgd)
        ours.update()
        history.append(ours.loss_scale)
    return history

# %% [markdown]
# Both see the same pattern of 500 steps, 15 % of which overflow:

# %%
generator = torch.Generator().manual_seed(0)
overflows = (torch.rand(500, generator=generator) < 0.15).tolist()
print("equal in all 500 steps:", torch_history(overflows) == our_history(overflows))

# %% [markdown]
# The tests do this for many patterns and constants, with several optimizers, and with a state that
# is saved and restored in the middle.
#
# ## 5. Updates that vanish
#
# Gradients are saved; now the weights. Around 1, bf16's numbers lie $2^{-7}$ apart. An update of
# 0.001
# falls between two of them. Apply it a hundred times: what is the sum?

# %%
guess_sum = 0.1  # your prediction for one hundred times 0.001 in bf16, starting from 1

# %% [markdown]
# Nearest rounding, a master copy, and *stochastic* rounding, which rounds up with the probability
# that makes the mean right:

# %%
from utils.techniques.formats import BF16, round_to, stochastic_round_to

generator = torch.Generator().manual_seed(0)
nearest, master, stochastic = torch.ones(1000), torch.ones(1000), torch.ones(1000)
for _ in range(100):
    nearest = round_to(nearest + 0.001, BF16)
    master = master + 0.001  # fp32; rounded only when the model reads it
    stochastic = stochastic_round_to(stochastic + 0.001, BF16, generator)
print(f"nearest: +{(nearest - 1).mean():.3f}, master: +{(master - 1).mean():.3f}, "
      f"stochastic: +{(stochastic - 1).mean():.3f}")
print(f"you said +{guess_sum}")

# %% [markdown]
# Nearest rounding loses all of it. On the real model, with a learning rate as late in a run, how
# many updates vanish? All arithmetic is fp32 here; only the weights are rounded:

# %%
from utils.techniques.master_weights import vanishing_updates

runs = vanishing_updates(GPTConfig(2, 2, 64, 64, 256), corpus, num_steps=30, learning_rate=1e-5)
rows = [(name, measured(f"{sum(run.vanished) / len(run.vanished):.0%}"),
         measured(run.losses[0] - run.losses[-1]))
        for name, run in runs.items()]
table(["weights", "updates that vanish", "loss fell by"], rows, "bf16 weights, 30 steps of AdamW")
fell = {name: run.losses[0] - run.losses[-1] for name, run in runs.items()}
print("With nearest rounding the loss falls less than half as far:",
      fell["nearest"] < 0.5 * fell["masters"])

# %% [markdown]
# Masters keep every update and cost 4 bytes per parameter: that is where lesson 01's "2 + 4" came
# from. Stochastic rounding needs no second copy. Most of its updates leave no trace either, but the
# few that arrive are a whole step of the format, as much too large as the others are too small. The
# loss falls as with masters; the price is noise.
#
# ## 6. O0, O1, O2, O3
#
# APEX, which the article recommends, packed all of this into four levels. Its amp was deprecated in
# October 2022 and removed on 2025-05-08 (commit cb65b8ed of NVIDIA/apex), nine months after the
# article appeared, so we rebuild it. A level is five properties, read from its source:

# %%
from utils.techniques.opt_levels import LEVELS

def short(value):
    return str(value).removeprefix("torch.")

rows = [(level.name, short(level.cast_model_type), level.patch_torch_functions,
         short(level.keep_batchnorm_fp32), short(level.master_weights), level.loss_scale)
        for level in LEVELS.values()]
headers = ["level", "cast model", "cast operations", "fp32 batchnorm", "masters", "loss scale"]
table(headers, [[str(cell) for cell in row] for row in rows], "apex/amp/frontend.py, rebuilt")

# %% [markdown]
# One step of any level. Forward in its context, scaled backward, gradients to the masters if there
# are some, a checked update, and back to the model:

# %%
from collections.abc import Callable

from torch import nn

# show: utils.techniques.opt_levels.MixedPrecision.step

# %% [markdown]
# Five runs of one small model on the same text, in real fp16. The loss is divided by 4096, as in a
# batch of that many micro-batches; Adam does not care about the size of gradients, so in fp32
# nothing changes. Which of the five will fail?

# %%
from utils.techniques.opt_levels import initialize

def run_level(level, loss_scale=None, num_steps=60):
    tiny = build_gpt(GPTConfig(2, 2, 32, 32, 256, attention="explicit"))
    precision = initialize(tiny, lambda p: torch.optim.AdamW(p, 3e-3), level, loss_scale)
    losses = []
    for number in range(num_steps):
        batch = corpus.batch(number, 8, 32)
        loss = precision.step(lambda model, b=batch: next_token_loss(model, *b) / 4096)
        losses.append(4096 * loss)
    return losses, precision

# %% [markdown]
# They take some seconds each:

# %%
from tqdm.auto import tqdm

trials = {"O0": ("O0", None), "O1": ("O1", None), "O2": ("O2", None),
          "O2, scale 1": ("O2", 1.0), "O3": ("O3", None)}
results = {name: run_level(*trial) for name, trial in tqdm(trials.items())}

# %% [markdown]
# What a run holds between its steps (weights, masters, Adam), by parameter, and its final loss:

# %%
def held_bytes(precision):
    states = [t for state in precision.optimizer.state.values() for t in state.values()]
    masters = precision.masters.parameters() if precision.masters else []
    kept = [*precision.model.parameters(), *masters, *states]
    return sum(t.nbytes for t in kept) / sum(p.numel() for p in precision.model.parameters())

def final(losses):
    return sum(losses[-10:]) / 10

# %% [markdown]
# The table of the four levels, and of O2 without its scale. Bytes per parameter are those between
# two steps, saved bytes those of one forward pass:

# %%
from utils.saved import saved_bytes

def saved_by(precision):
    """Bytes that one forward pass keeps for backward at this level."""
    def forward():
        with precision.forward_context():
            return next_token_loss(precision.model, *corpus.batch(0, 8, 32))
    return saved_bytes(precision.model, forward)

def level_row(name):
    losses, precision = results[name]
    held = f"{held_bytes(precision):.1f}"
    skipped = precision.scaler.num_skipped_steps
    return name, held, saved_by(precision), measured(final(losses)), skipped

headers = ["level", "bytes per parameter", "saved for backward", "final loss", "skipped steps"]
table(headers, [level_row(name) for name in results], "Five runs on the same text")

# %% [markdown]
# In words that do not depend on the machine:

# %%
reference = final(results["O0"][0])
for name in ("O1", "O2", "O2, scale 1"):
    gap = final(results[name][0]) - reference
    print(f"{name}: within 0.1 of fp32: {abs(gap) < 0.1}")
print("O3 still has a finite loss:", math.isfinite(final(results["O3"][0])))

# %% [markdown]
# Without a scale, O2 learns late and badly: its small gradients were zero. O3 is finished after its
# first step: Adam's epsilon, 1e-8, is zero in fp16, and it divides by it. O1 and O2 follow fp32.
# The
# curves say the same:

# %%
figure = new_figure()
axes = figure.subplots()
for name, (losses, _) in results.items():
    axes.plot(losses, label=name)
axes.set(xlabel="step", ylabel="loss, nats per byte", title="Five runs on the same text")
axes.legend(ncols=2)
show(figure, "Loss of the five runs", "O1 and O2 lie on fp32's curve, O2 without a scale stays "
     "above it, and O3 has no curve after its first step.")

# %% [markdown]
# Now the gradients of section 1 and these runs together. Choose level, format and scale: where does
# a format lose nothing? bf16 and e5m2 make good contrasts:

# %%
from utils.precision_explorers import LevelRun, level_explorer

level_runs = {name: LevelRun(losses, held_bytes(precision))
              for name, (losses, precision) in results.items() if name != "O3"}
level_explorer(level_runs, gradients)

# %% [markdown]
# The bytes again: O2 holds 14 between steps and 16 with gradients, O1 and O0 hold 12 and 16, O3
# holds 6 and 8. What O1 and O2 save for backward shrinks, in O2 the most, because there the
# residual stream is fp16 as well and no weight has to be copied. **The levels differ in
# activations and speed, not in what stays**; only O3 is
# cheaper, and O3 does not train. "No accuracy loss", says the article. True with masters and a
# scale, as O1 and O2 show; false without, as the two other runs show.

# %% [markdown]
# ## 7. When it does not pay
#
# - **With bf16.** It has fp32's range: no underflow, no scaler. The masters are still needed.
# - **On processors without 16-bit units**, and for small products (lesson 02's table).
# - **On consumer cards** and against TF32 the ceiling is 2x, whatever the level.
# - **A scaler on top of a bug.** If the scale falls and falls, the gradients overflow at any scale:
#   look at the learning rate and the data, not at the scaler.
# - **FP8** needs block scales and large products; nanochat's log (2026-02-02) saw 1.38x in a
#   micro-benchmark become about 1.05x at equal capability.

# %% [markdown]
# ## Takeaways
#
# - fp16 loses small gradients; one multiplication of the loss saves them.
# - A dynamic scale halves after an overflow, skips that step, and doubles after a quiet window.
# - Unscale before clipping, once, and never step on inf or NaN.
# - Small updates vanish between 16-bit numbers; fp32 masters or stochastic rounding keep them.
# - O1 and O2 track fp32; pure fp16 with Adam does not survive its first step.
#
# **Next:** [lab 03](../labs/lab_03_loss_scaling.ipynb), then lesson 04, activation checkpointing.
