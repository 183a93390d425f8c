# %% [markdown]
# # Lab 03: scale, skip and keep what fp16 would lose
#
# Five exercises on [lesson 03](../notebooks/03_loss_scaling.ipynb), about 70 minutes. Complete each
# function and run the check right below it. The checks bring gradients, overflows and models that
# you have not seen. Run All works at any time; what you have not touched says *not attempted yet*.
# Stuck? Remove the `#` before a `hint`; a second, longer one is `hint("03.1", 2)`.

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# You may use any of these:

# %%
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.checks.truth_03 import drift, small_gpt_gradients
from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters, tensor_sizes
from utils.measured import table
from utils.plots import bytes_text
from utils.techniques.formats import E4M3, E5M2, FP16, NumberFormat, round_to
from utils.techniques.loss_scaling import DynamicScaler
from utils.techniques.master_weights import MasterWeights
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 03.1: a scale for any format
#
# *difficulty 2/5 - 10 minutes*
#
# One fp16 scale serves all gradients. The 8-bit formats are so narrow that each tensor gets a scale
# of its own, chosen from the gradients of the last steps. The next ones may be larger, so the scale
# leaves them headroom: room to double a number of times.

# %%
def choose_scale(gradients: list[Tensor], format: NumberFormat, headroom: int = 0) -> float:
    """The largest power of two that keeps all within `format` after `headroom` more doublings.

    A scaled gradient is within the format while its size is at most `format.largest`. Inf and NaN
    come from steps that were skipped: leave them out. 1.0 if nothing but zeros is left.
    """
    ### BEGIN SOLUTION
    sizes = [g[g.isfinite()].abs() for g in gradients]
    highest = max((size.max().item() for size in sizes if size.numel()), default=0.0)
    if highest == 0:
        return 1.0
    return 2.0 ** (math.floor(math.log2(format.largest / highest)) - headroom)
    ### END SOLUTION

# %% [markdown]
# The small GPT's gradients and a few on the edge: does your scale fit, and twice your scale not?

# %%
check("03.1", choose_scale)
# hint("03.1")

# %% [markdown]
# What do scales per tensor save? Once the exercise passes, the table below has the share of the
# small GPT's gradients that a format rounds to zero:

# %%
gradients = small_gpt_gradients()

def share_lost(format, groups):
    num_lost = num_nonzero = 0
    for group in groups:
        scale = choose_scale(group, format) if groups is not unscaled else 1.0
        for g in group:
            num_lost += int(((g != 0) & (round_to(g * scale, format) == 0)).sum())
            num_nonzero += int((g != 0).sum())
    return f"{num_lost / num_nonzero:.0%}"

unscaled, together, apart = [gradients], [list(gradients)], [[g] for g in gradients]
if judge("03.1", choose_scale).status == "passed":
    rows = [(f.name, *(share_lost(f, groups) for groups in (unscaled, together, apart)))
            for f in (FP16, E5M2, E4M3)]
    table(["format", "no scale", "one scale", "a scale per tensor"], rows, "Rounded to zero")
else:
    print("Your turn: the table appears when exercise 03.1 passes.")

# %% [markdown]
# ## Exercise 03.2: a scaler with patience
#
# *difficulty 2/5 - 15 minutes*
#
# One strange batch overflows at any scale, and the lesson's scaler then halves a scale that was
# right. Megatron-LM's scaler has patience. Its docstring speaks of overflows "in a row"; its code
# (`megatron/core/optimizer/grad_scaler.py` at commit 00caa53) does something else, your rule:
#
# - After `growth_interval` iterations in a row without overflow the scale doubles, and the count
#   starts anew. Any overflow ends the row.
# - Each overflow uses up one unit of `patience`. The one that uses up the last unit halves the
#   scale, and so does every one after it.
# - A run starts with full patience; only growth restores it, all of it.

# %%
def scales_with_patience(
    overflowed: list[bool], scale: float, growth_interval: int, patience: int
) -> list[float]:
    """The scale after each iteration; `overflowed[i]` says whether iteration i had inf or NaN."""
    ### BEGIN SOLUTION
    scales, num_quiet, left = [], 0, patience
    for has_inf in overflowed:
        if has_inf:
            num_quiet, left = 0, left - 1
            if left <= 0:
                scale /= 2
        else:
            num_quiet += 1
            if num_quiet == growth_interval:
                num_quiet, left, scale = 0, patience, 2 * scale
        scales.append(scale)
    return scales
    ### END SOLUTION

# %% [markdown]
# Short runs that each ask one question, then 200 random ones:

# %%
check("03.2", scales_with_patience)
# hint("03.2")

# %% [markdown]
# ## Exercise 03.3: unscale, check and clip in one go
#
# *difficulty 3/5 - 15 minutes*
#
# The lesson's loop reads every gradient for the overflow, multiplies it, reads it for its norm, and
# multiplies it again to clip. Each is a pass over memory, and passes are what an optimizer step
# waits for. Do it with *one* reading and *one* multiplication per gradient, and no copy:

# %%
def unscale_check_clip_(
    parameters: list[nn.Parameter], loss_scale: float, max_norm: float
) -> float:
    """Unscale all gradients in place and clip their total norm to `max_norm`.

    Returns the total norm of the unscaled gradients before clipping, as a number. It is inf or NaN
    if a gradient is; then all gradients stay as they came, for the step will be skipped.
    Gradients are fp32; parameters without one are passed over.
    """
    ### BEGIN SOLUTION
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
    norm = torch.linalg.vector_norm(norms).item() / loss_scale  # inf and NaN survive a norm
    if math.isfinite(norm):
        factor = min(1.0, max_norm / (norm + 1e-6)) / loss_scale
        for gradient in gradients:
            gradient.mul_(factor)
    return norm
    ### END SOLUTION

# %% [markdown]
# Values, infinities, and every operation that touches a gradient:

# %%
check("03.3", unscale_check_clip_)
# hint("03.3")

# %% [markdown]
# ## Exercise 03.4: a colleague's loop
#
# *difficulty 4/5 - 20 minutes*
#
# Micro-batches, fp16 weights, fp32 masters, a dynamic scaler, clipping. It runs without an error:

# %%
def colleagues_step(
    masters: MasterWeights, optimizer: torch.optim.Optimizer, scaler: DynamicScaler,
    losses: list[Callable[[], Tensor]], max_norm: float,
) -> None:
    for loss in losses:
        scaler.scale(loss() / len(losses)).backward()
    with torch.no_grad():
        for weight, master in zip(masters.model.parameters(), masters.parameters(), strict=True):
            master.copy_(weight)
    masters.collect_gradients()
    clip_grad_norm_(masters.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    masters.copy_to_model()
    optimizer.zero_grad()

# %% [markdown]
# After six steps, two of them with overflows: how far are her masters from where fp32 gets with the
# same gradients, as a share of the way?

# %%
print(f"{drift(colleagues_step):.0%} of the way is missing or wrong")

# %% [markdown]
# There are three bugs. One throws away small updates, one throws away small gradients, and one
# takes nearly all of the gradient whenever it acts. Write the loop that equals fp32:

# %%
def training_step(
    masters: MasterWeights, optimizer: torch.optim.Optimizer, scaler: DynamicScaler,
    losses: list[Callable[[], Tensor]], max_norm: float,
) -> None:
    """One update of the masters on the mean of the losses of all micro-batches.

    Calling a loss runs the model (fp16) on its micro-batch. The true gradient is clipped to
    `max_norm`. After an overflow nothing is updated. At the end the model has the masters' values,
    and no gradient is left.
    """
    ### BEGIN SOLUTION
    for loss in losses:
        scaler.scale(loss() / len(losses)).backward()
        masters.collect_gradients()  # micro-batches add up in fp32
    scaler.unscale_(optimizer)
    clip_grad_norm_(masters.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    masters.copy_to_model()
    optimizer.zero_grad()
    ### END SOLUTION

# %% [markdown]
# Gradients at the optimizer, masters, weights and scale after each step:

# %%
check("03.4", training_step)
# hint("03.4")

# %% [markdown]
# ## Exercise 03.5: the bill of O2
#
# *difficulty 2/5 - 10 minutes*
#
# O2 is often sold as "half the memory". What does a model hold, activations aside, with fp16
# weights, `MasterWeights` and AdamW? Two moments decide: the end of the last micro-batch's
# backward, and the optimizer's step. Gradients are collected after *every* micro-batch.

# %%
def o2_bytes(config: GPTConfig, num_micro_batches: int) -> tuple[int, int]:
    """Bytes of weights, masters, all gradients and AdamW's state at two moments of a late step.

    First: the last backward has just ended, and its gradients are not yet collected. Second: the
    optimizer steps. AdamW also keeps a step count of 4 bytes for each parameter tensor.
    """
    ### BEGIN SOLUTION
    total = count_parameters(config).total
    always = (2 + 4 + 8) * total + 4 * len(tensor_sizes(config))  # weights, masters, AdamW
    collected_before = 4 * total if num_micro_batches > 1 else 0
    return always + 2 * total + collected_before, always + 4 * total
    ### END SOLUTION

# %% [markdown]
# Three unseen models under the meter, to the byte:

# %%
check("03.5", o2_bytes)
# hint("03.5")

# %% [markdown]
# Beside fp32, whose weights, gradients and AdamW take 16 bytes per parameter at both moments:

# %%
is_done = judge("03.5", o2_bytes).status == "passed"

def peak_text(config, num_micro_batches):
    return bytes_text(max(o2_bytes(config, num_micro_batches))) if is_done else "your turn"

rows = [(name, bytes_text(16 * count_parameters(config).total),
         peak_text(config, 1), peak_text(config, 8)) for name, config in PRESETS.items()]
table(["model", "fp32", "O2", "O2, 8 micro-batches"], rows, "Held bytes, larger of both moments")

# %% [markdown]
# More than fp32: with its masters O2 saves nothing here. What it halves is the activations, so it
# pays where those are most of the bill.
#
# ## Where you stand
#
# All five passed? Then a loop in 16 bits that quietly learns less will not get past you:

# %%
progress("lab_03")
