# %% [markdown]
# # Number formats and an autocast written by hand
#
# The article's first advice is mixed precision. In this lesson you see what a number loses in 16
# and in 8 bits, write the machine that decides who may lose it, prove it equal to
# `torch.autocast`, and settle its bill to the byte. About 80 minutes; no GPU needed.
#
# 1. [The bill, and a promise](#1.-The-bill,-and-a-promise)
# 2. [What a format keeps](#2.-What-a-format-keeps)
# 3. [Eight bits and four](#3.-Eight-bits-and-four)
# 4. [Naive: everything in 16 bits](#4.-Naive:-everything-in-16-bits)
# 5. [Better: an autocast by hand](#5.-Better:-an-autocast-by-hand)
# 6. [Equal to torch, bit for bit](#6.-Equal-to-torch,-bit-for-bit)
# 7. [The bill, exact](#7.-The-bill,-exact)
# 8. [Seconds](#8.-Seconds)
# 9. [When it does not pay](#9.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# The model is small, because many processors compute very slowly in 16 bits; the bytes do not
# care:

# %%
from dataclasses import replace

import torch

from utils.config import PRESETS, GPTConfig
from utils.corpus import load_corpus
from utils.measured import measured, table
from utils.model import build_gpt, next_token_loss
from utils.predictions import reveal
from utils.timing import use_one_thread

use_one_thread()
generator = torch.Generator().manual_seed(0)
config, batch_size = GPTConfig(2, 2, 64, 64, 256, attention="explicit"), 4
tokens_BT, targets_BT = load_corpus().batch(0, batch_size, config.context_length)

# %% [markdown]
# ## 1. The bill, and a promise
#
# Mixed precision computes in 16 bits where it can. The article says that it stops "over-allocating
# memory" and performs "fewer calculations". Lesson 01 gives the fp32 bill of one step. What share
# of the bytes *saved for backward* will autocast take away?

# %%
guess_percent = 50  # your prediction: percent of the saved bytes that disappear

# %% [markdown]
# ## 2. What a format keeps
#
# A floating-point number is a sign, an exponent (its range) and a mantissa (its precision). What
# do you expect from 256 + 1 in bf16 and from 2048 + 1 in fp16?

# %%
for dtype, number in ((torch.bfloat16, 256), (torch.float16, 2048)):
    print(dtype, number, "+ 1 =", (torch.tensor(number, dtype=dtype) + 1).item())

# %% [markdown]
# The one is lost: with 8 significant bits the next number after 256 is 258. And at the other ends
# of the range?

# %%
for number in (70_000.0, 1e-8):
    kept = [torch.tensor(number).to(dtype).item() for dtype in (torch.float16, torch.bfloat16)]
    print(f"{number:g} is {kept[0]:g} in fp16 and {kept[1]:g} in bf16")

# %% [markdown]
# fp16 has the finer steps, bf16 has fp32's range. That trade decides everything in this lesson and
# the next. All formats of the course follow from three numbers each:

# %%
from utils.techniques.formats import FORMATS

rows = [(f.name, f.num_bits, f.exponent_bits, f.mantissa_bits, f"{f.largest:.4g}",
         f"{f.smallest_subnormal:.3g}", f"{f.epsilon:.3g}") for f in FORMATS.values()]
headers = ["format", "bits", "exponent", "mantissa", "largest", "smallest", "step after 1"]
table(headers, rows, "Seven number formats (tf32 lives inside matrix units only)")

# %% [markdown]
# Take a number apart, bit by bit. Which formats keep 0.1 within one per cent?

# %%
from utils.format_explorers import bits_explorer

bits_explorer()

# %% [markdown]
# Rounding into a format is one idea: divide by the spacing of the format's numbers around x, round
# to a whole number, multiply back. This is the function that the course uses:

# %%
import math

from torch import Tensor

from utils.techniques.formats import NumberFormat, spacing_at

# show: utils.techniques.formats.round_to

# %% [markdown]
# Is it the hardware's rounding? A hundred thousand random numbers over the whole range of fp32,
# against torch's own casts:

# %%
bits = torch.randint(-(2**31), 2**31, (100_000,), generator=generator).int()
numbers = bits.view(torch.float32).nan_to_num(0.0)
for name in ("bf16", "fp16", "fp8 e4m3", "fp8 e5m2"):
    pair = round_to(numbers, FORMATS[name]), numbers.to(FORMATS[name].dtype).float()
    same = torch.equal(*(values.view(torch.int32) for values in pair))
    print(f"{name}: equal in every bit: {same}")

# %% [markdown]
# Formats are rulers with steps that double at every power of two. Where does each ruler begin and
# end, and how fine is it there?

# %%
from utils.format_explorers import spacing_explorer

spacing_explorer()

# %% [markdown]
# ## 3. Eight bits and four
#
# Eight bits alone are too few for a whole tensor: one large value pushes all others below the
# smallest step. *Block formats* give every 16 or 32 neighbours a scale of their own. We try them on
# real weights, those of a model after 30 steps on text:

# %%
from utils.techniques.block_formats import (
    quantise_mxfp8,
    quantise_nvfp4,
    quantise_per_tensor,
    relative_rms_error,
)
from utils.train import TrainingConfig, train

trained = build_gpt(replace(config, attention="fused"))
run = train(trained, load_corpus(), TrainingConfig(batch_size, config.context_length), steps=30)
weight = trained.blocks[0].feed_forward.widen.weight.detach()

# %% [markdown]
# To see what scales are for, one value is replaced by a spike, a thousand or a million times the
# typical weight. What happens to the *other* values?

# %%
def error_of_others(quantise, spike):
    """Relative error of all values but the first, which is the spike."""
    spiky = weight.flatten().clone()
    spiky[0] = spike * weight.std()
    return relative_rms_error(spiky[1:], quantise(spiky).values[1:])

makers = {"fp8 e4m3, one scale": quantise_per_tensor, "MXFP8": quantise_mxfp8}
makers["NVFP4"] = quantise_nvfp4
rows = [(name, f"{make(weight).bits_per_value:.2f}",
         *(measured(f"{error_of_others(make, spike):.1%}") for spike in (1, 1e3, 1e6)))
        for name, make in makers.items()]
headers = ["format", "bits per value", "no spike", "spike of 1,000", "spike of 1,000,000"]
table(headers, rows, "Relative error of the other weights")

# %% [markdown]
# The first spike does little: eight bits still float, over a range of 200,000 to 1. The second one
# ends fp8 with one scale, which rounds everything else to zero, while MXFP8 loses only the 31
# neighbours in the spike's block. NVFP4's block scales are themselves eight-bit numbers under one
# scale for the tensor, so it fails like the first. Scales cost a fraction of a bit per value.
#
# ## 4. Naive: everything in 16 bits
#
# The simplest way to 16 bits is `model.bfloat16()`. What can go wrong? Sums, for one. Add up a
# thousand ones, one after the other:

# %%
total = torch.zeros((), dtype=torch.bfloat16)
for _ in range(1000):
    total += 1
print("1 added a thousand times in bf16:", total.item())

# %% [markdown]
# And the loss of the model, all of it in bf16?

# %%
half = build_gpt(config).bfloat16()
naive = next_token_loss(half, tokens_BT, targets_BT)
print("dtype of the naive loss:", naive.dtype)
print("gap between neighbours at 5.5 in bf16:", float(spacing_at(5.5, FORMATS["bf16"])))

# %% [markdown]
# A loss that can only be 5.5 or 5.53125 cannot show progress, and its gradient starts from a
# rounded number. The weights suffer as well: an update below half a step vanishes (lesson 03).
# Some operations tolerate 16 bits, some do not. Who decides?
#
# ## 5. Better: an autocast by hand
#
# Autocast leaves the weights in fp32 and decides *operation by operation*. It needs lists: products
# go to 16 bits, because that is where the time is; sums, exponentials and losses go to fp32; where
# inputs differ, the widest wins. CPU and CUDA have different lists:

# %%
from utils.techniques.autocast_rules import CPU_RULES, CUDA_RULES

for rules in (CPU_RULES, CUDA_RULES):
    print(f"{rules.device}: {len(rules.low)} in 16 bits, {len(rules.fp32)} in fp32, "
          f"{len(rules.fp32_sums)} told to sum in fp32, {len(rules.widest)} in the widest")
print("in 16 bits on CUDA only:", sorted(CUDA_RULES.low - CPU_RULES.low))

# %% [markdown]
# To get between the model and its operations without touching the model, torch offers a *function
# mode*: an object that is asked before every operation. This is the whole decision:

# %%
from torch.utils._pytree import tree_map_only

# show: utils.techniques.autocast.ManualAutocast._cast_inputs

# %% [markdown]
# The cast itself has one subtlety. A weight is used in every micro-batch; casting it each time
# would cost more than it saves. So the 16-bit copy of a *weight* (an fp32 leaf that wants a
# gradient) is kept until the outermost context ends, after which the optimizer may change it:

# %%
from utils.techniques.autocast import _cache, _is_eligible

# show: utils.techniques.autocast.ManualAutocast._cast

# %% [markdown]
# Try it. What dtype does each operation return under the two rule sets, given bf16 inputs?

# %%
from torch.nn import functional as F

from utils.techniques.autocast import ManualAutocast

x = torch.randn(4, 4, generator=generator).bfloat16()
operations = {"x @ x": lambda: x @ x, "softmax": lambda: x.softmax(-1), "exp": lambda: x.exp(),
              "layer norm": lambda: F.layer_norm(x, (4,)), "x + x": lambda: x + x,
              "gelu": lambda: F.gelu(x), "cross entropy": lambda: F.cross_entropy(x, x.argmax(-1))}

def dtypes(rules):
    with ManualAutocast(rules):
        return [str(operation().dtype).removeprefix("torch.") for operation in operations.values()]

columns = zip(operations, dtypes(CPU_RULES), dtypes(CUDA_RULES), strict=True)
table(["operation on bf16", "CPU rules", "CUDA rules"], list(columns), "What comes out")

# %% [markdown]
# **A trap:** on a CPU softmax, exponential and layer norm stay in bf16. A run on a CPU therefore
# does not show how safe CUDA's autocast is; use the CUDA rules to see it. Now the cache. How many
# casts does a step of two micro-batches need?

# %%
guess_casts = 100  # your prediction

# %% [markdown]
# One micro-batch, then two, each time inside one context:

# %%
model = build_gpt(config)

def casts_of(num_micro_batches):
    with ManualAutocast() as autocast:
        for _ in range(num_micro_batches):
            next_token_loss(model, tokens_BT[:1, :8], targets_BT[:1, :8])
    return autocast.num_casts

one, two = casts_of(1), casts_of(2)
reveal("Casts in two micro-batches", guess_casts, two)
print(f"one micro-batch: {one}, the second one adds {two - one}: its weights were cast already")

# %% [markdown]
# Regions can be excepted, and contexts nest; the innermost one decides. Which dtypes do you expect?

# %%
a = torch.randn(4, 4, generator=generator)
with ManualAutocast():
    print("inside:", (a @ a).dtype)
    with ManualAutocast(enabled=False):
        print("excepted:", (a @ a).dtype)
    print("inside again:", (a @ a).dtype)

# %% [markdown]
# ## 6. Equal to torch, bit for bit
#
# Forward, loss and every gradient of the GPT, ours against `torch.autocast`:

# %%
def under(context):
    """Logits, loss and gradients of a fresh model inside `context`."""
    model = build_gpt(config)
    with context:
        logits = model(tokens_BT)
        loss = next_token_loss(model, tokens_BT, targets_BT)
    loss.backward()
    return [logits, loss, *(parameter.grad for parameter in model.parameters())]

theirs, ours = under(torch.autocast("cpu", torch.bfloat16)), under(ManualAutocast(CPU_RULES))
same = [torch.equal(a, b) for a, b in zip(theirs, ours, strict=True)]
print(f"{sum(same)} of {len(same)} tensors are equal in every bit")

# %% [markdown]
# The tests go further: 77 operations, three mixtures of input dtypes, both rule sets (CUDA's
# against
# torch's own header, and against a GPU where there is one). And backward? Look at the dtypes of the
# gradients:

# %%
gradients = [tensor.dtype for tensor in ours[2:]]
print("gradient dtypes:", {str(dtype) for dtype in gradients})
print("logits:", ours[0].dtype, " loss:", ours[1].dtype)

# %% [markdown]
# A cast is an operation of the graph like any other, so the gradient comes back through it and
# arrives in the weight's own fp32. Autocast needs no backward of its own.
#
# ## 7. The bill, exact
#
# What stays (weights, gradients, Adam) does not change: 16 bytes per parameter, as in lesson 01.
# What is saved for backward does. Per block, in bytes per token and width:
#
# | kept | fp32 | autocast |
# |---|---|---|
# | inputs of the two norms (the residual stream stays fp32) | 8 | 8 |
# | inputs of three linear layers | 12 | 6 |
# | queries, keys, values | 12 | 6 |
# | around the GELU | 32 | 16 |
# | together | 64 | 36 |
#
# So even the activations shrink by 44 %, not by half. And every weight of a product is kept once
# more, as its 16-bit copy. Does the pencil agree with autograd?

# %%
from utils.predict import saved_activation_bytes
from utils.predict_autocast import autocast_saved_bytes, weight_copy_bytes
from utils.saved import saved_bytes

def loss_under_autocast():
    with ManualAutocast(CPU_RULES):
        return next_token_loss(model, tokens_BT, targets_BT)

predicted = autocast_saved_bytes(config, batch_size, config.context_length)
found = saved_bytes(model, loss_under_autocast)
print(f"predicted {predicted:,} bytes, found {found:,} bytes, equal: {predicted == found}")

# %% [markdown]
# And the promise of section 1?

# %%
before = saved_activation_bytes(config, batch_size, config.context_length)
reveal("Saved bytes that disappear", guess_percent, 100 * (1 - found / before), "%")
print(f"weight copies: {weight_copy_bytes(config):,} bytes of the {found:,}")

# %% [markdown]
# The copies do not depend on the batch, the activations do. Where is the crossing?

# %%
from utils.plots import bytes_axis, new_figure, show

sizes = [1, 2, 4, 8, 16, 32]
bills = {name: [bill(PRESETS["laptop"], size, 128) / size for size in sizes]
         for name, bill in (("fp32", saved_activation_bytes), ("autocast", autocast_saved_bytes))}
figure = new_figure()
axes = figure.subplots()
for name, values in bills.items():
    axes.plot(sizes, values, label=name)
axes.set_xscale("log", base=2)
axes.set(xlabel="sequences in a batch", xticks=sizes, xticklabels=sizes, ylim=(0, None))
axes.set_title("Bytes saved for backward, per sequence")
axes.legend()
bytes_axis(axes)
shares = [1 - low / high for low, high in zip(bills["autocast"], bills["fp32"], strict=True)]
show(figure, "Saved bytes per sequence, laptop preset",
     f"Autocast takes {shares[0]:.0%} of the saved bytes away with one sequence and "
     f"{shares[-1]:.0%} with 32, because the copies are shared.")

# %% [markdown]
# "Fewer calculations"? torch's FLOP counter settles it:

# %%
from torch.utils.flop_counter import FlopCounterMode

def counted_flops(enabled):
    with FlopCounterMode(display=False) as counter, ManualAutocast(enabled=enabled):
        next_token_loss(model, tokens_BT, targets_BT)
    return counter.get_total_flops()

print(f"FLOPs in fp32: {counted_flops(False):,}, under autocast: {counted_flops(True):,}")

# %% [markdown]
# The same. Each FLOP is narrower, none is saved: **the article's sentence is wrong.** And memory is
# not "over-allocated" before: autocast adds copies and takes activations away.
#
# ## 8. Seconds
#
# Narrower FLOPs are faster where the silicon is built for them. Is yours? A square product in three
# precisions; the naive hope is twice the speed of fp32 in 16 bits:

# %%
guess_ratio = 2.0  # your prediction: speed of bf16 over fp32, for a 256 x 256 product

# %% [markdown]
# The three run in turn:

# %%
from utils.experiments.precision import matmul_sweep

rows = matmul_sweep("cpu", sizes=(64, 128, 256))
speed = {(row["precision"], row["size"]): row["flops_per_s"] for row in rows}
lines = [(size, *(measured(speed[name, size] / 1e9, digits=2) for name in ("fp32", "bf16", "fp16")))
         for size in (64, 128, 256)]
table(["size", "fp32", "bf16", "fp16"], lines, "GFLOP/s of a square product on this core")
ratio = speed["bf16", 256] / speed["fp32", 256]
reveal("bf16 over fp32", guess_ratio, ratio, "x", is_measured=True)

# %% [markdown]
# A processor with 16-bit instructions shows two to three here; one without them emulates, and loses
# by a factor of tens. Other machines, as recorded by `make record`:

# %%
from utils.recorded import load_recorded, show_recorded

def recorded_row(run):
    largest = max(row["size"] for row in run.experiments["matmul_precision"])
    by_name = {row["precision"]: row["flops_per_s"]
               for row in run.experiments["matmul_precision"] if row["size"] == largest}
    cells = [f"{by_name[name] / 1e9:,.0f}" if name in by_name else "-"
             for name in ("fp32", "tf32", "bf16", "fp16", "fp8")]
    return run.device, run.torch, run.date, largest, *cells

runs = load_recorded("matmul_precision")
headers = ["device", "torch", "date", "size", "fp32", "tf32", "bf16", "fp16", "fp8"]
kinds = [run.kind for run in runs]
show_recorded("Recorded: GFLOP/s of a square product", headers, map(recorded_row, runs), kinds)

# %% [markdown]
# Cited peaks of chips, dense, from the course's dated table, say where a factor can come from at
# all. What is the most that bf16 or fp16 can gain over true fp32, and over TF32?

# %%
from utils.hardware import find_chip

def peak_row(name):
    chip = find_chip(name)
    low = chip.bf16_tflops or chip.fp16_tflops
    over_tf32 = f"{low / chip.tf32_tflops:.1f}" if chip.tf32_tflops else "no TF32"
    return name, chip.fp32_tflops, low, f"{low / chip.fp32_tflops:.1f}", over_tf32

names = ("V100 32GB", "RTX 3090", "RTX 4090", "A100 80GB", "H100 SXM")
headers = ["chip", "fp32 TFLOP/s", "16-bit TFLOP/s", "over fp32", "over TF32"]
table(headers, [peak_row(name) for name in names], "Cited peaks (read 2026-11-23)")

# %% [markdown]
# The article says "up to 6x on GPUs, 2-3x on TPUs". Published: 1.5x to 5.5x over fp32 on a V100
# (PyTorch blog, 2020-07-28); "more than 3 times on modern GPUs, 60 % on TPUs" (TensorFlow guide).
# On a consumer card the ceiling is 2x, and against TF32 it is 2x on every chip here.
#
# Does writing autocast in Python cost time? Ours against torch's, step by step in turn:

# %%
from utils.timing import compare

def step_under(make_context):
    def step():
        with make_context():
            loss = next_token_loss(model, tokens_BT, targets_BT)
        loss.backward()
        model.zero_grad()
    return step

contexts = {"ours": ManualAutocast, "torch": lambda: torch.autocast("cpu", torch.bfloat16)}
timed = compare({name: step_under(make) for name, make in contexts.items()}, repeats=7)
print("Ours against torch's:", measured(timed.sentence("ours", "torch")))

# %% [markdown]
# ## 9. When it does not pay
#
# - **No 16-bit units.** On such a processor autocast saves bytes and costs time, as your own table
#   may show.
# - **Small products.** A cast reads and writes every value; below some size it takes longer than
#   the
#   product saves.
# - **Small batches.** The weight copies outweigh what the activations give back (section 7).
# - **Against TF32.** Where TF32 is switched on, half of the famous factor is already there.
# - **FP8.** nanochat's log (2026-02-02) reports 1.38x in a micro-benchmark, 1.17x in training, and
#   about 1.05x at equal capability.

# %% [markdown]
# ## Takeaways
#
# - fp16 keeps precision, bf16 keeps range; below 8 bits every block needs a scale.
# - Autocast is three lists, a cast, and a cache of weight copies: a hundred lines of Python.
# - It changes no FLOP and copies the weights; saved activations shrink by 44 % of a block.
# - CPU and CUDA rules differ: softmax and layer norm stay in bf16 on a CPU.
# - The speed comes from the silicon: 2x on consumer cards, 15x on an H100 against true fp32.
#
# **Next:** [lab 02](../labs/lab_02_manual_autocast.ipynb), then lesson 03: loss scaling and master
# weights.
