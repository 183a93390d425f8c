# %% [markdown]
# # Choosing what to keep
#
# Lesson 04 ran every block again and kept almost nothing. That is one point of a whole curve.
# Which bytes are cheap to make again, which are not, and what is the best that any choice can do
# within a given memory? This lesson chooses by operation, by layer and by place, each time with an
# exact bill. About 85 minutes; no GPU needed.
#
# 1. [The bill of one block](#1.-The-bill-of-one-block)
# 2. [Naive: every block again](#2.-Naive:-every-block-again)
# 3. [Better: choose by operation](#3.-Better:-choose-by-operation)
# 4. [The optimum for equal layers](#4.-The-optimum-for-equal-layers)
# 5. [The optimum for unequal layers](#5.-The-optimum-for-unequal-layers)
# 6. [The third option: move it](#6.-The-third-option:-move-it)
# 7. [Set a budget](#7.-Set-a-budget)
# 8. [What it buys](#8.-What-it-buys)
# 9. [When it does not pay](#9.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# Six layers with 32 narrow heads and explicit attention. Per byte of its other activations this
# model writes twice as many scores as GPT-3 did (128 tokens over heads 4 wide; there 2,048 over
# 128), so a laptop shows GPT-3's problem:

# %%
from dataclasses import replace

import torch

from utils.config import PRESETS, GPTConfig
from utils.corpus import load_corpus
from utils.measured import measured, table
from utils.model import build_gpt
from utils.predictions import reveal
from utils.timing import use_one_thread

use_one_thread()
config = replace(PRESETS["laptop"], num_layers=6, num_heads=32, attention="explicit")
model = build_gpt(config)
tokens_BT, targets_BT = load_corpus().batch(0, 2, config.context_length)

# %% [markdown]
# ## 1. The bill of one block
#
# Every saved tensor has two prices: the bytes to keep it, and the FLOPs to make it again from what
# else is kept. A ledger of all operations knows both. Which tensors would you rather make again?

# %%
from utils.remake import KEPT_HEADERS, kept_tensors

block, x_BTD = model.blocks[1], torch.ones(2, 128, 128, requires_grad=True)
kept = kept_tensors(lambda: block(x_BTD), [*block.parameters(), *block.buffers()])
large = sorted((t for t in kept if t.num_bytes > 10_000), key=lambda t: t.flops_per_byte)
table(KEPT_HEADERS, [tensor.row for tensor in large], "One block, by the price of a byte")

# %% [markdown]
# Three classes. Norms and GELU are element-wise: no products at all. The softmax weights are two
# thirds of all bytes and cost 2 FLOPs per byte. What hangs on linear layers costs 64 to 192 ("clone"
# are copies: attention's result, then queries, keys, values). The first row is the block's input:
# keeping it makes the rest possible. So keep the results of linear layers, and make everything else
# again. What share of the bytes that this model keeps for backward does that save?

# %%
guess_percent = 30  # your prediction

# %% [markdown]
# ## 2. Naive: every block again
#
# First lesson 04's plan, as a reference. The model becomes a chain of fourteen layers: embedding,
# twelve halves of blocks, loss. A *plan* names them in order; what stands in inner brackets keeps
# only its input and runs again:

# %%
from utils.experiments.checkpointing import block_plan, plain_plan
from utils.experiments.plan_runner import halved_chain

chain = halved_chain(model, targets_BT)
plain, full = plain_plan(6), block_plan(6)
print("keep all:", plain)
print("every block again:", full)

# %% [markdown]
# `step_cost` measures all that does not depend on the clock: the bytes kept between forward and
# backward, the peak, and the FLOPs. Weights, gradients and the batch exist before, and do not
# count. The two ends of the curve:

# %%
from utils.step_cost import COST_HEADERS, gradients_of, plan_cost, step_cost
from utils.techniques.checkpointing import checkpoint_by_hooks
from utils.techniques.segments import run_plan

def by(plan, checkpoint=checkpoint_by_hooks, layers=chain):
    return lambda: run_plan(plan, layers, tokens_BT, checkpoint)

def cost_of(forward, gpt=model):
    return step_cost(forward, gpt, tokens_BT, targets_BT)

costs = {"keep all": cost_of(by(plain)), "every block again": cost_of(by(full))}
rows = [cost.row(name, costs["keep all"]) for name, cost in costs.items()]
table(COST_HEADERS, rows, "One step on two sequences")

# %% [markdown]
# Hardly anything is kept, and the peak falls to what one block needs for itself. The price: all
# products of the blocks are done again, although a few cheap tensors held most of the bytes.
#
# ## 3. Better: choose by operation
#
# A *policy* says of each operation whether its result is kept. Two dispatch modes, which see every
# operation below autograd, carry it out. Around the first run, chosen results go into a store:

# %%
from collections.abc import Iterable
from typing import Any

from torch._ops import OpOverload

from utils.techniques.selective import _Chooser, _Kept

# show: utils.techniques.selective.KeepChosen without docstring

# %% [markdown]
# Around the run for backward, the same operations come by in the same order, and what is in the
# store is handed back instead of computed:

# %%
# show: utils.techniques.selective.ReuseChosen without docstring

# %% [markdown]
# Two policies. The popular one, `keep_products`, keeps every matrix product, for products are
# expensive. The other keeps linear layers only, so that both products of attention's core run
# again:

# %%
# show: utils.experiments.checkpointing.keep_linear

# %% [markdown]
# Which one saves more?

# %%
from utils.techniques.selective import checkpoint_keeping, keep_products

costs["keep products"] = cost_of(by(full, checkpoint_keeping(keep_products)))
costs["keep linear layers"] = cost_of(by(full, checkpoint_keeping(keep_linear)))
base, linear = costs["keep all"], costs["keep linear layers"]
table(COST_HEADERS, [cost.row(name, base) for name, cost in costs.items()], "Two policies")
reveal("Saved by keeping linear layers", guess_percent, 100 * linear.kept_saved(base), "%")

# %% [markdown]
# "Keep products" recomputes no product and saves almost nothing: the scores are the result of a
# product, and they are the large tensor. Keeping only linear layers saves over 70 % of the kept
# bytes for less than 5 % more FLOPs. Torch can do this too, with the same policy in its own words:

# %%
from torch.utils.checkpoint import CheckpointPolicy as Choice
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

def torch_policy(context, operation, *args, **kwargs):
    return Choice.MUST_SAVE if keep_linear(operation) else Choice.PREFER_RECOMPUTE

def torch_selective(function, x):
    def contexts():
        return create_selective_checkpoint_contexts(torch_policy)
    return checkpoint(function, x, use_reentrant=False, context_fn=contexts)

# %% [markdown]
# Do bytes, FLOPs and every bit of every gradient agree, also with the step that keeps all?

# %%
ours, theirs = by(full, checkpoint_keeping(keep_linear)), by(full, torch_selective)
cost, gradients = cost_of(theirs), gradients_of(ours, model)
print("kept bytes and FLOPs equal:", cost[::2] == linear[::2])
print("our peak is not above torch's:", linear.peak_bytes <= cost.peak_bytes)
print("gradients equal to torch's:", torch.equal(gradients, gradients_of(theirs, model)))
print("equal to keeping all:", torch.equal(gradients, gradients_of(by(plain), model)))

# %% [markdown]
# The article promises "up to 70 %". That number exists: Korthikanti et al. (2022, arXiv 2205.05198)
# ran only attention's core again, on GPT-3. In 16 bits, lesson 01's 16 values per token and width
# take 32 bytes, and two dropout masks make them 34. A score takes 5: softmax's result 2, dropout's
# mask 1, their product 2. What do 96 heads, 2,048 tokens and a width of 12,288 give?

# %%
scores_bytes = 5 * 96 * 2048 / 12288  # per token and width
core_share = 2048 / (6 * 12288 + 2048)  # of a forward pass, by 24 B T D^2 (1 + T / 6D)
print(f"bytes of the core: {scores_bytes / (34 + scores_bytes):.1%} of a block")
print(f"its FLOPs: {core_share:.1%} of a forward pass, {core_share / 3:.1%} of a step")

# %% [markdown]
# 70 % at 2.7 %, the two figures that are quoted for that paper. So the article's 70 % belongs to
# *selective* checkpointing. Its "15-25 %" of time brackets what Hugging Face's guide said of *full*
# checkpointing ("~20 % slower"), which saves much more than 70 % of the activations. The sentence
# mixes two techniques.
#
# ## 4. The optimum for equal layers
#
# Now choose by *layer*. Let all layers be equal, and let memory hold s of their inputs beside the
# layer at work. What is the least number of forward runs? Cut the chain once: run up to the cut,
# solve the rest with one place less, then the front, again, with all places. Try every cut:

# %%
from functools import cache

@cache
def fewest(layers, inputs):
    if layers == 1:
        return 1
    if inputs == 1:  # from the start again for each layer
        return layers * (layers + 1) // 2
    return min(cut + fewest(layers - cut, inputs - 1) + fewest(cut, inputs)
               for cut in range(1, layers))

# %% [markdown]
# This is *Revolve*, by Griewank and Walther (2000; recalled, so the course's tests search all
# schedules of short chains instead of believing it). If no layer may run more than r times, the
# longest chain for s inputs is a binomial coefficient, C(s + r - 1, s). Runs of the whole chain:

# %%
from utils.techniques.schedules import longest_chain

rows = [(s, *(fewest(n, s) for n in (4, 8, 16, 32, 64)), longest_chain(s, 2), longest_chain(s, 3))
        for s in (1, 2, 3, 4, 8)]
lengths = ["4 layers", "8", "16", "32", "64", "longest with 2 runs", "with 3"]
table(["inputs", *lengths], rows, "Fewest forward runs")

# %% [markdown]
# Divided by the number of layers:

# %%
from utils.plots import label_line_ends, log2_axis, new_figure, show

figure = new_figure(height=3.4)
axes = figure.subplots()
for s in (1, 2, 3, 4, 8):
    axes.plot(range(1, 65), [fewest(n, s) / n for n in range(1, 65)], label=f"inputs: {s}")
axes.set(xlabel="layers", ylabel="average runs of a layer")
log2_axis(axes, "y")
label_line_ends(axes)
average = [fewest(64, s) / 64 for s in (1, 2, 8)]
show(figure, "Revolve's optimum", "A chain of 64 layers needs {:.1f} runs of each on average with "
     "room for one input, {:.1f} with two, and {:.1f} with eight.".format(*average))

# %% [markdown]
# So much for paper. Now 16 equal blocks with fused attention, run by `binomial_plan`. One input
# takes 32,768 bytes here. Does the peak fall by exactly that, place by place?

# %%
from utils.techniques.schedules import binomial_plan

deep, batch = build_gpt(GPTConfig(16, 4, 64, 64, 256)), (tokens_BT[:, :64], targets_BT[:, :64])
keep = plan_cost(deep, tuple(range(16)), *batch)
found = {s: plan_cost(deep, binomial_plan(16, s), *batch) for s in (16, 8, 4, 2, 1)}
rows = [(s, fewest(16, s), cost.peak_bytes, (cost.peak_bytes - found[1].peak_bytes) // 32_768,
         *cost.row("", keep)[4:]) for s, cost in found.items()]
deep_headers = ["inputs", "runs", "peak bytes", "inputs above one", "peak saved", "FLOPs added"]
table(deep_headers, rows, "16 layers by Revolve's plan")

# %% [markdown]
# Exactly, with one exception: of 16 places the last layer needs none, since its backward comes
# first. The law holds, but the gain is small. One block at work needs as much memory as some thirty
# inputs, so going from 16 inputs to 4 saves four more percent of the plain peak for a quarter of a
# step's FLOPs. Revolve pays where inputs are large against what a layer saves.
#
# ## 5. The optimum for unequal layers
#
# Our halves are anything but equal. By the meter, for one block, as for all six:

# %%
from utils.techniques.chain import measure_layers

first, attend, feed, last = measure_layers([*chain[:3], chain[13]], tokens_BT)
rows = [(name, cost.output_bytes, cost.saved_bytes, cost.backward_peak_bytes, cost.flops)
        for name, cost in (("attention", attend), ("feed-forward", feed))]
half_headers = ["half", "its input", "saved bytes", "peak in backward", "FLOPs"]
table(half_headers, rows, "One block in two halves")

# %% [markdown]
# Attention saves four times the bytes for fewer FLOPs. The best plan for layers i to j within m
# bytes is the cheapest of these:
#
# - **keep** layer i: its FLOPs, plus the best for i + 1 to j within m less what i keeps, if the
#   peaks of i itself fit;
# - **bracket** i to c, for any c: their FLOPs once, plus the best for c + 1 to j within m less one
#   input, plus the best for i to c within m, for that part runs again when all behind it is gone.
#
# A dynamic programme over (i, j, m) finds it: `cheapest_plan`. Is it the optimum? For a chain of
# six layers, every plan there is can be tried:

# %%
@cache
def open_plans(layers):
    """All plans of these layers without a bracket around everything."""
    found = [(layers[0], *rest) for rest in all_plans(layers[1:])]
    for cut in range(1, len(layers)):
        rests = all_plans(layers[cut:])
        found += [(part, *rest) for part in open_plans(layers[:cut]) for rest in rests]
    return found

@cache
def all_plans(layers):
    return [p for q in open_plans(layers) for p in (q, (q,))] if layers else [()]

# %% [markdown]
# Embedding, two blocks in halves, loss. Brute force knows peak and FLOPs of each plan; the
# programme, which rounds bytes up to slots, is asked at each percent of the plain peak, and again
# with half a percent more:

# %%
from utils.techniques.budget import cheapest_plan, plan_flops, plan_peak_bytes

short, layers = [first, attend, feed, attend, feed, last], (0, 1, 2, 3, 4, 5)
tried = sorted((plan_flops(p, short), plan_peak_bytes(p, short)) for p in all_plans(layers))
limits = [plan_peak_bytes(layers, short) * percent // 100 for percent in range(68, 101)]
best = [next(flops for flops, peak in tried if peak <= limit) for limit in limits]
print(f"{len(tried):,} plans tried at {len(limits)} budgets")
for more in (1.0, 1.005):
    planned = [plan_flops(cheapest_plan(short, int(limit * more)), short) for limit in limits]
    num_best = sum(a <= b for a, b in zip(planned, best, strict=True))
    print(f"with {more - 1:.1%} more room, as cheap as the best at {num_best}")

# %% [markdown]
# Now the real chain. Nine budgets, from all of the plain peak down to what just works; each plan is
# predicted, then run:

# %%
from utils.techniques.segments import runs_of

layer_costs = [first, *[attend, feed] * 6, last]
budgets = {p: base.peak_bytes * p // 100 for p in (100, 90, 80, 70, 60, 50, 40, 35, 30)}
plans = {p: cheapest_plan(layer_costs, budget) for p, budget in budgets.items()}
ran = {p: cost_of(by(plan)) for p, plan in plans.items()}

# %% [markdown]
# Prediction against meter; the last column says how often each of the fourteen layers runs. How
# many of the nine are over their budget?

# %%
predicted = {p: plan_peak_bytes(plan, layer_costs) for p, plan in plans.items()}
rows = [(f"{p} %", budgets[p], predicted[p], ran[p].peak_bytes, ran[p].row("", base)[5],
         "".join(map(str, runs_of(plan).values()))) for p, plan in plans.items()]
plan_headers = ["budget", "bytes", "predicted peak", "by the meter", "FLOPs added", "runs by layer"]
table(plan_headers, rows, "The cheapest plan for each budget")
print("over budget:", sum(ran[p].peak_bytes > budgets[p] for p in budgets), "of 9")

# %% [markdown]
# None, and the predictions are exact. Down to half of the peak only attention halves run again; at
# the least that works, early layers run six times. (The programme counts whole layers. A real run
# for backward stops at the last tensor it needs, so at 50 % its own 11.6 % are 9.7 %.) But compare:
# "keep linear layers" reached 44 % of the peak for 4.7 % more FLOPs, half the price. The programme
# is optimal among plans of *halves*; a policy cuts finer. An optimum is only as good as the choices
# it may make.
#
# ## 6. The third option: move it
#
# Instead of making tensors again, move them to a slower memory and back: for a GPU the host's, here
# a file on disk. Hooks on saved tensors do it; a storage goes out once, however many operations save
# a view of it:

# %%
from utils.techniques.offload import DiskStore, offloading

store = DiskStore()

def offloaded():
    with offloading(store, model):
        return run_plan(plain, chain, tokens_BT, checkpoint_by_hooks)

costs["move to disk"] = cost_of(offloaded)  # three steps
table(COST_HEADERS, [cost.row(name, base) for name, cost in costs.items()], "All ways so far")
print(f"per step {store.bytes_out // 3:,} bytes out and {store.bytes_back // 3:,} back")

# %% [markdown]
# No FLOP is added, and the peak is the lowest so far; the price is traffic. (More comes back than
# went out: some blocks are needed twice, and are not kept in between.) And seconds? An honest
# warning: much of a laptop's "disk" is the system's page cache, which is memory again, so this is
# the time of copies, not of a disk:

# %%
from utils.timing import compare

def step_of(forward):
    return lambda: forward().backward()

ways = {"every block again": by(full), "keep linear layers": ours, "move to disk": offloaded}
steps = {name: step_of(way) for name, way in {"keep all": by(plain), **ways}.items()}
timed = compare(steps, repeats=5, warmup=1)
rows = [(name, measured(timed.sentence(name, "keep all"))) for name in ways]
table(["way", "against keeping all"], rows, "Seconds of a step on this core")
store.close()

# %% [markdown]
# Mind the policy: its dispatch modes look at every operation in Python. In a model this small that
# can take longer than the products it avoids; on large layers it disappears.
#
# When does moving beat running again? A block's forward takes about 24 B T D^2 (1 + T / 6D) FLOPs,
# and what it saves must go out and come back. FLOPs grow with D squared, bytes with D: from some
# width on, moving wins. From which, for an H100 on PCIe 5?

# %%
guess_width = 4096  # your prediction

# %% [markdown]
# Fused attention, 16 bits, 4,096 tokens, heads 128 wide; at the chip's peak, and at 40 % of it, as
# real training reaches. The bandwidths, in one direction, are cited (ml-engineering, read
# 2026-11-23):

# %%
from utils.offload_price import LINKS, link_row

rows = [link_row(link) for link in LINKS]
link_headers = ["chip", "link", "GB/s", "width at peak", "width at 40 %"]
table(link_headers, rows, "From this width on, moving is quicker")
reveal("H100 on PCIe 5, at its peak", guess_width, rows[1][3])

# %% [markdown]
# Llama-2-70B is 8,192 wide: over PCIe it runs again. NVLink would do, but it leads to another GPU's
# memory, not to the host's. All this assumes that the chip *waits* for the copy. Real systems copy
# while the chip computes, out during forward and back during backward; then half the width is
# enough to hide it.
#
# ## 7. Set a budget
#
# Nine plans have run, and their bytes are known. Their seconds are predicted from the FLOPs, then
# measured in turn. Move the budget: left, which layers are kept and how often the others run;
# right, all runs of this machine. Where does the curve turn steep?

# %%
from utils.keep_explorers import PlanRun, budget_explorer

timed = compare({p: step_of(by(plan)) for p, plan in plans.items()}, repeats=5, warmup=1)
seconds = {p: timed.timings[p].median_s for p in plans}
expected = {p: cost.flops / base.flops * seconds[100] for p, cost in ran.items()}
runs = [PlanRun(plans[p], predicted[p], ran[p].peak_bytes, ran[p].flops, expected[p], seconds[p])
        for p in plans]
names = ["embed", *(f"{half} {k}" for k in range(6) for half in ("attend", "feed")), "loss"]
budget_explorer(runs, names)

# %% [markdown]
# ## 8. What it buys
#
# Memory that is free can hold a larger batch. Let weights, gradients, Adam and activations share 48
# MiB. When everything is kept, one sequence fits. How many with the optimal plan?

# %%
guess_sequences = 2  # your prediction

# %% [markdown]
# The batch grows until the meter says no; "optimal" is planned anew for each batch:

# %%
from utils.costs import count_parameters
from utils.experiments.checkpointing import largest_size, step_by
from utils.experiments.plan_runner import PlanRunner

runner = PlanRunner(config, "cpu")
limit_bytes = 48 * 2**20 - 8 * count_parameters(config).total  # less Adam's two averages
sizes = {name: largest_size(runner, name, limit_bytes, first)
         for name, first in (("none", 1), ("selective", 2), ("full", 4), ("optimal", 4))}
reveal("Sequences with the optimal plan", guess_sequences, sizes["optimal"])

# %% [markdown]
# Does the larger batch also train faster, per token? Each plan at its largest batch, in turn, and
# what a billion tokens would cost in electricity (30 watts assumed, as in lesson 00):

# %%
from utils.experiments.plan_table import batch_row
from utils.prices import load_electricity_prices

price = next(row for row in load_electricity_prices() if row.customer == "residential")
steps = {name: step_by(runner, name, size, limit_bytes) for name, size in sizes.items()}
timed = compare(steps, repeats=3, warmup=1)
flops = {name: runner.flops(step) / sizes[name] for name, step in steps.items()}
rows = [(name, size, f"{flops[name] / flops['none'] - 1:.1%}",
         *batch_row(128 * size / timed.timings[name].median_s, price))
        for name, size in sizes.items()]
batch_headers = ["plan", "largest batch", "FLOPs added", "tokens per second", "a billion tokens"]
table(batch_headers, rows, "48 MiB, by plan")

# %% [markdown]
# The batch grows several times; the tokens per second do not. One core is busy with one sequence
# already, and work that is done twice is paid twice. "optimal" holds no more sequences than running
# every block again, but at a lower price. **Checkpointing buys room, not speed.** It saves dollars
# where a small batch leaves the chip idle, or where without it nothing fits at all.
# Other machines, as recorded by `make record`:

# %%
from utils.experiments import plan_table
from utils.recorded import load_recorded, show_recorded

recorded = load_recorded(plan_table.EXPERIMENT)
rows, kinds = plan_table.recorded_rows(recorded), [run.kind for run in recorded]
show_recorded("Recorded: five plans", plan_table.HEADERS, rows, kinds)

# %% [markdown]
# ## 9. When it does not pay
#
# **When weights and optimizer dominate.** A wide model on few tokens, whole steps with Adam. What
# share of the peak does running every block again save, for 1, 4 and 16 sequences of 64 tokens?

# %%
from utils.step_cost import adam_step_peak_bytes

wide = replace(PRESETS["laptop-wide"], attention="explicit")
two = (0, 1, 2, 3, 4, 5), ((0,), (1,), (2,), (3,), (4,), (5,))
peaks = {size: [adam_step_peak_bytes(wide, size, 64, plan) for plan in two] for size in (1, 4, 16)}
rows = [(size, keep, again, f"{1 - again / keep:.1%}") for size, (keep, again) in peaks.items()]
table(["sequences", "keep all", "every block again", "saved"], rows, "Peak of a step with Adam")

# %% [markdown]
# Nothing, 9 %, 44 %: the same technique. With one sequence the peak lies in Adam's step, where no
# activation is left to save. Read the bill before you checkpoint.
#
# **When fused attention has dropped the large term already.** The same model and policy, fused:

# %%
fused = build_gpt(replace(config, attention="fused"))
layers, policy = halved_chain(fused, targets_BT), checkpoint_keeping(keep_linear)
keep, again = cost_of(by(plain, layers=layers), fused), cost_of(by(full, policy, layers), fused)
rows = [("explicit", base.kept_bytes, linear.kept_bytes, linear.row("", base)[2]),
        ("fused", keep.kept_bytes, again.kept_bytes, again.row("", keep)[2])]
table(["attention", "keep all", "keep linear layers", "saved"], rows, "Kept bytes")

# %% [markdown]
# The fused kernel never stores the scores, so the 70 % shrink by half. It *is* a selective
# checkpoint: it makes the scores again in backward, inside one kernel. Use it first.
#
# **When the batch can be accumulated.** Four sequences in three ways:

# %%
one = step_by(runner, "none", 1)
ways = {"at once": step_by(runner, "none", 4), "every block again": step_by(runner, "full", 4),
        "four times one": lambda: [one() for _ in range(4)]}
timed = compare(ways, repeats=3, warmup=1)
flops = {name: runner.flops(step) for name, step in ways.items()}
rows = [(name, runner.peak_bytes(step), f"{flops[name] / flops['at once'] - 1:.1%}",
         measured(timed.timings[name].median_s, "s")) for name, step in ways.items()]
table(["four sequences", "peak bytes", "FLOPs added", "step"], rows, "Checkpoint or accumulate?")

# %% [markdown]
# Accumulation needs less memory here, and no extra FLOP. Checkpoint when it cannot help: when one
# sequence alone does not fit, or when micro-batches become so small that the chip idles.
#
# ## Takeaways
#
# - Every saved tensor has two prices, bytes and FLOPs; make again what is large and cheap.
# - The article's 70 % is *selective* checkpointing: attention's core again, under 3 % of a forward.
# - The optimum is binomial for equal layers, a dynamic programme for unequal ones, never over budget.
# - Moving adds no FLOPs but needs bandwidth: over PCIe, widths above ten thousand.
# - Room is what you buy. Read the bill, fuse attention and accumulate before you pay for it.
#
# **Next:** [lab 05](../labs/lab_05_choosing_what_to_keep.ipynb), then lesson 06, data parallelism.
