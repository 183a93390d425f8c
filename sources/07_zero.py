# %% [markdown]
# # ZeRO, stage by stage, then DeepSpeed
#
# Data parallelism gives every GPU the whole model. ZeRO gives every GPU a part of it, and the same
# training comes out. In this lesson you build it in three stages, each a small change to the one
# before, predict its bytes and its messages, and hold both against exact counts. Then the real
# DeepSpeed trains the same model beside ours. About 90 minutes; two cores are enough, no GPU needed.
#
# 1. [The bill of N copies](#1.-The-bill-of-N-copies)
# 2. [Flat shards](#2.-Flat-shards)
# 3. [Stage 1: the optimizer's state](#3.-Stage-1:-the-optimizer's-state)
# 4. [Stage 2: gradients that leave early](#4.-Stage-2:-gradients-that-leave-early)
# 5. [Stage 3: weights on demand](#5.-Stage-3:-weights-on-demand)
# 6. [What a training loop needs besides](#6.-What-a-training-loop-needs-besides)
# 7. [The real DeepSpeed](#7.-The-real-DeepSpeed)
# 8. [Up to ten times?](#8.-Up-to-ten-times?)
# 9. [When it does not pay](#9.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# ## 1. The bill of N copies
#
# Adam with 16-bit weights keeps 16 bytes for each parameter (lesson 03): 2 of weights, 2 of
# gradients, 4 of fp32 masters, 8 of moments. In lesson 06 every rank kept all of them, the same
# bytes on each; only activations differed. Llama 2's smallest shape, 6.76 billion parameters, needs
# 108 GB that way, and an H100 has 80. So data parallelism cannot train it on any number of H100s:
# the thousandth needs as much memory as the first. If nothing were stored twice, how many H100s
# would hold those bytes?

# %%
guess_gpus = 8  # your prediction

# %% [markdown]
# Stage 1 of ZeRO spreads the optimizer's state (masters and moments) over the ranks, stage 2 also
# the gradients, stage 3 also the weights. The whole bill:

# %%
from utils.zero_bill import BF16, Parts, formulas

# show: utils.zero_bill.held_per_parameter

# %% [markdown]
# For 16-bit weights that is 4 + 12/N, 2 + 14/N and 16/N bytes; for fp32, whose weights are their
# own masters, 8 + 8/N, 4 + 12/N and 16/N. (Rajbhandari et al., arXiv 1910.02054.) Three models, and
# the fewest H100s that hold them, at RunPod's on-demand $3.99 an hour of 2026-11-09:

# %%
from utils.measured import measured, table
from utils.predictions import reveal
from utils.zero_bill import FEWEST_HEADERS, fewest_gpus, fewest_row

rows = [fewest_row(f"{name}-shape", 80e9, 3.99) for name in ("llama2-7b", "llama2-70b")]
table(FEWEST_HEADERS, [fewest_row("gpt2-1.5b", 80e9, 3.99), *rows], "H100s, and their rent")
reveal("With nothing twice", guess_gpus, fewest_gpus("llama2-7b-shape", 3, 80e9), "H100s")

# %% [markdown]
# Activations come on top, so a real run needs more. But the order is right: at 70 billion
# parameters only stage 3 helps, for even the 16-bit weights alone are more than one GPU holds.
#
# ## 2. Flat shards
#
# Who keeps which part? Cutting each tensor by rows fails as soon as rows do not divide by N, and
# makes a message of every tensor. Better: lay the parameters of a *unit* (a block, say) one after
# another into one flat tensor, pad it to a multiple of N, and cut that into N equal shards:

# %%
from torch import Tensor

# show: utils.techniques.flat.FlatLayout.shard_values
# show: utils.techniques.flat.FlatLayout.padded_values
# show: utils.techniques.flat.FlatLayout.views

# %% [markdown]
# (Methods stand here without their class: these are `FlatLayout`'s, later ones `ShardedUnit`'s and
# the stages'.) The parameters become views of the flat tensor. Nothing is copied, and one message
# moves the whole unit. Two small linear layers on four ranks, value by value:

# %%
from torch import nn

from utils.plots import new_figure, show
from utils.techniques.flat import split_into_units
from utils.zero_plots import draw_layout

two_layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
figure, (unit,) = new_figure(7, 2.6), split_into_units(two_layers, [], world_size=4)
draw_layout(figure.subplots(), unit.layout)
show(figure, "A flat layout", "26 values make four shards of 7, the last with 2 of padding; where "
     "a parameter ends and a shard begins have nothing to do with each other.")

# %% [markdown]
# A GPT is cut into one unit for each block and one for the rest (embeddings, last norm, output
# layer). This one is made so that nothing divides evenly:

# %%
from utils.config import GPTConfig
from utils.model import build_gpt

odd = GPTConfig(num_layers=3, num_heads=3, model_dim=33, context_length=15, vocab_size=61)
model = build_gpt(odd)
layouts = [unit.layout for unit in split_into_units(model, model.blocks, world_size=4)]
rows = [(each.names[0], each.num_values, each.shard_values, each.padded_values - each.num_values)
        for each in layouts]
table(["unit that starts with", "values", "a shard of 4", "padding"], rows, "An odd GPT")

# %% [markdown]
# At most N - 1 values of padding a unit: nothing to worry about, but to be counted.
#
# ## 3. Stage 1: the optimizer's state
#
# Adam treats each value alone. So rank r needs the moments of a value only if it is the one who
# updates it, and it shall update its shards and no others. For that it needs their mean gradient,
# which is what a reduce-scatter delivers:

# %%
import torch

from utils.techniques.ring import ring_all_gather, ring_reduce_scatter

# show: utils.techniques.sharded_unit.ShardedUnit.scatter_gradients without docstring

# %% [markdown]
# Afterwards the others need the new weights. An all-gather hands them out:

# %%
# show: utils.techniques.sharded_unit.ShardedUnit.gather

# %% [markdown]
# The step of stage 1 stands between the two. The optimizer is torch's own; it was given shards
# instead of weights, and knows nothing of ranks:

# %%
from utils.techniques.clipping import require_positive

# show: utils.techniques.zero.ZeroOne.step without docstring

# %% [markdown]
# Lesson 06 averaged gradients with an all-reduce, which *is* a reduce-scatter and an all-gather.
# Stage 1 only moves the update between its halves. Call it a *pass* when all weights go round the
# ring once: each rank sends (N - 1)/N of them. How many times the weights does each of four ranks
# send in a step of stage 1?

# %%
guess_weights = 3.0  # your prediction

# %% [markdown]
# `compare` trains the same GPT from the same seed on the same batches under each system, for five
# steps, and holds all of it against one process. Four ranks, fp32, the formulas beside the counts:

# %%
from utils.peers.ddp import OurDdpSystem
from utils.peers.ours import zero_system
from utils.peers.table import compare, print_comparison

on_four = compare({"data parallel": OurDdpSystem, "stage 1": zero_system(1)}, 4)
print_comparison(on_four, formulas(["data parallel", "stage 1"], 4))
reveal("Stage 1 sends", guess_weights, on_four[1].sent_weights, "times the weights")

# %% [markdown]
# The same training, the same traffic, 10 bytes instead of 16: in bytes there is no price at all. (In
# milliseconds there is one here: gloo's all-reduce is one call in C++, our ring many in Python. "At
# least" is what would be sent if gloo's reduce-scatter were not an all-reduce; see lesson 06.)
#
# ## 4. Stage 2: gradients that leave early
#
# After backward each rank holds 4 bytes of gradients per parameter, to hand most of them to others
# and forget them. But a block's gradients are complete long before backward ends. So send them at
# once, and free them. This is all that stage 2 adds to stage 1, in `__init__` and one new method:

# %%
from typing import Any

from utils.techniques.watch import BackwardWatch, tensors_in

# show: utils.techniques.zero.ZeroTwo.__init__
# show: utils.techniques.zero.ZeroTwo._on_ready

# %% [markdown]
# `BackwardWatch` puts a hook on each parameter, as the buckets of lesson 06 did. It calls `on_ready`
# for the last block first and for the rest at the end, in the same order on all ranks: ranks whose
# messages cross would wait for each other for ever. The formula says 4 + 12/4 bytes on four ranks:

# %%
on_four += compare({"stage 2": zero_system(2)}, 4)
print(f"stage 2 holds {on_four[2].held_per_parameter:.2f} bytes per parameter,",
      f"and sends its weights {on_four[2].sent_weights:.2f} times, as stage 1")

# %% [markdown]
# ## 5. Stage 3: weights on demand
#
# What is left are weights: whole on every rank, used one block at a time. Stage 3 keeps its shard,
# gathers a block's weights just before the block computes, and frees them right after, in forward
# and again in backward. Autograd has saved views of those weights. They stay what they are: freeing
# shrinks the storage below them to nothing, gathering fills the same storage again. (`_calls` and
# `go_on` are for parameters that only some ranks used: layers that backward has left send first.)
# In code:

# %%
from utils.techniques.sharded_unit import ShardedUnit

# show: utils.techniques.zero.ZeroThree._follow without docstring
# show: utils.techniques.zero.ZeroThree._on_ready

# %% [markdown]
# Two gathers and one reduce-scatter: 3 passes where the stages before had 2. All stages on two
# ranks and on four:

# %%
stages = {f"stage {n}": zero_system(n) for n in (1, 2, 3)}
everything = {"data parallel": OurDdpSystem, **stages}
on_two = compare(everything, 2)
on_four += compare({"stage 3": zero_system(3)}, 4)
for num_ranks, rows in ((2, on_two), (4, on_four)):
    print_comparison(rows, formulas(everything, num_ranks), f"{num_ranks} ranks, fp32")

# %% [markdown]
# Formulas as lines, counts as dots:

# %%
from utils.zero_plots import draw_stages

figure = new_figure(6.4, 3.6)
draw_stages(figure.subplots(), {2: on_two, 4: on_four})
show(figure, "Bytes per parameter", "Stages 1 and 2 level off at what every rank still keeps "
     "whole, 8 and 4 bytes in fp32; stage 3 halves with every doubling of the ranks.")

# %% [markdown]
# When do the bytes come and go? One step of each stage under the memory meter, on two ranks:

# %%
from utils.experiments.zero_timeline import steps_of_all_stages
from utils.zero_plots import draw_step

figure = new_figure(9, 3.4)
draw_step(figure, steps_of_all_stages())
show(figure, "Bytes during a step", "Beside its shards, stage 2 never holds more than two units of "
     "whole gradients; stage 3 does the same with weights, forward and backward.")

# %% [markdown]
# So stage 3 needs room for two whole units, a block and the rest, above its 16/N: units should be
# small. And the odd GPT of section 2, padding included, to the byte?

# %%
from utils.experiments.zero_exact import EXACT_HEADERS, exact_row

rows = [exact_row(stage, num_ranks, odd) for num_ranks in (2, 4) for stage in (1, 2, 3)]
table(EXACT_HEADERS, rows, "The odd GPT, padding and Adam's counters included")

# %% [markdown]
# To the byte, on every rank.
#
# ## 6. What a training loop needs besides
#
# **Mixed precision.** With 16-bit weights the master is a tensor of its own, of which each rank has
# its shard in fp32. Gradients become fp32 on the way in; weights are rounded on the way out:

# %%
# show: utils.techniques.sharded_unit.ShardedUnit.collect_gradient
# show: utils.techniques.sharded_unit.ShardedUnit.round_master

# %% [markdown]
# Messages are 16 bits wide, too. On four ranks, against one process in fp32:

# %%
from utils.peers import SMALL, TrainingJob

rows = compare(stages, 4, TrainingJob(low_precision=True))
print_comparison(rows, formulas(stages, 4, BF16, first=1), "4 ranks, bf16 with fp32 masters")

# %% [markdown]
# Sent are as many weights as before, each half as wide. The gap is that of bf16, not of ZeRO.
#
# **Clipping.** Gradients whose norm is too large are scaled down. But now no rank has all
# gradients. One more number must be sent, the sum of squares:

# %%
from collections.abc import Sequence

from torch import distributed as dist

Group = dist.ProcessGroup | None

# show: utils.techniques.clipping.global_norm without docstring

# %% [markdown]
# Suppose each rank took the norm of what it has, and the limit is 0.5. What would go wrong?

# %%
from utils.peers.harness import batches, parts_of
from utils.ranks import run_ranks

def norms(rank, world_size, job):
    system = zero_system(2)(build_gpt(job.config), rank, world_size, job)
    system.backward(*parts_of(next(batches(job)), rank, world_size, 1)[0], True)
    mine = [unit.gradient_S for unit in system.zero.units]
    return torch.cat(mine).norm().item(), global_norm(mine).item()

rows = [(rank, f"{own:.2f}", f"{min(1, 0.5 / own):.2f}", f"{whole:.2f}", f"{0.5 / whole:.2f}")
        for rank, (own, whole) in enumerate(run_ranks(norms, 4, TrainingJob()))]
table(["rank", "own norm", "own factor", "global norm", "right factor"], rows, "One gradient")

# %% [markdown]
# Every shard would be scaled by a factor of its own, some not at all: not a shorter gradient, but
# another direction, and one that changes with N.
#
# **Accumulation.** Four micro-batches make one step. Data parallelism and stage 1 wait for the last
# one before they send anything. Stages 2 and 3 cannot: what they do not keep, they must send. So M
# micro-batches cost 2, M + 1 and 3M passes of (N - 1)/N each:

# %%
from utils.experiments.zero_exact import ACCUMULATION_HEADERS, accumulation_row

rows = [accumulation_row(stage, num_ranks=2, micro_batches=4) for stage in (1, 2, 3)]
table(ACCUMULATION_HEADERS, rows, "Weights that each of 2 ranks sends in a step")

# %% [markdown]
# Four micro-batches hold four times the tokens of one. For them stage 1 sends no more, stage 2 sends
# 2.5 times as much, stage 3 four times: there accumulation saves no traffic at all.
#
# **Checkpoints.** Each rank writes its own shards, and nobody gathers anything. A manifest, written
# last, says how they were cut. On another number of ranks a shard is another range of the same flat
# tensor, so all there is to resharding is cutting ranges:

# %%
# show: utils.techniques.zero_checkpoint.cut

# %% [markdown]
# Four ranks train five steps and save after three. Two other ranks start from other weights, load,
# and do the last two. The worker:

# %%
from utils.techniques.zero_checkpoint import load_shards, newest, save_shards

def train_or_resume(rank, world_size, folder, resumes):
    job = TrainingJob()
    system = zero_system(2)(build_gpt(SMALL, seed=7 * resumes), rank, world_size, job)
    start, losses = load_shards(system.zero, newest(folder)) if resumes else 0, []
    for batch in list(batches(job))[start:]:
        loss = system.backward(*parts_of(batch, rank, world_size, 1)[0], True).detach()
        system.step()
        dist.all_reduce(loss)
        losses.append(loss.item() / world_size)
        if len(losses) == 3 and not resumes:
            save_shards(system.zero, folder, step=3)
    return losses

# %% [markdown]
# Are the losses of the last two steps equal?

# %%
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    whole_run = run_ranks(train_or_resume, 4, folder, False)[0]
    resumed = run_ranks(train_or_resume, 2, folder, True)[0]
gap = max(abs(a - b) for a, b in zip(whole_run[3:], resumed, strict=True))
print(len(resumed), "steps on two ranks; losses equal within 1e-5:", gap < 1e-5)

# %% [markdown]
# ## 7. The real DeepSpeed
#
# DeepSpeed is the library that ZeRO comes from. It takes model, optimizer, and a dictionary of
# settings:

# %%
from utils.peers.deepspeed_zero import NOTHING_STAYS

# show: utils.peers.deepspeed_zero.deepspeed_config without docstring

# %% [markdown]
# The same GPT, seed, batches and ranks, with torch's AdamW on both sides. On systems where it cannot
# run, the table says so and shows a recorded run:

# %%
from utils.peers.deepspeed_import import deepspeed_problem
from utils.peers.deepspeed_zero import deepspeed_stage
from utils.peers.recorded_runs import recorded_deepspeed
from utils.peers.table import recorded_rows

problem = deepspeed_problem()
real = {f"DeepSpeed stage {n}": problem or deepspeed_stage(n) for n in (0, 1, 2, 3)}
rows = [*on_two, *compare(real, 2, recorded=recorded_rows(recorded_deepspeed(), 2))]
print_comparison(rows, formulas(everything, 2) | formulas(real, 2), "2 ranks, fp32")

# %% [markdown]
# The same training, within 1e-5 of one process. What differs from the formula, and why:
#
# - It holds more state: its masters are copies even when weights are fp32 already, 4/N bytes.
# - Its stages 1 and 2 are one: in both, gradients leave during backward, through a bucket that stays.
# - It sends more. Stage 3 meets gloo's reduce-scatter, and "at least" is our 1.5. Stages 1 and 2 do
#   not reduce-scatter at all by default: they all-reduce a bucket, and each rank keeps its part.
# - Its stage 3 gathers tensor by tensor (56 calls), ours block by block; on small tensors a call's
#   latency is most of its time.
#
# The default can be changed. Does reducing each part to its owner alone bring 2 passes back?

# %%
to_owner = {"use_multi_rank_bucket_allreduce": False}
real = {"DeepSpeed stage 2, to the owner": problem or deepspeed_stage(2, **to_owner)}
print_comparison(compare(real, 2), formulas(real, 2, first=2), "Another setting")

# %% [markdown]
# "At least" says so. (DeepSpeed's blog of 2020-03-17 tells that its first ZeRO-1, too, moved 1.5
# times as much as data parallelism, until a reduce-scatter mended it.)
#
# ## 8. Up to ten times?
#
# "Up to 10 times" faster than traditional training, the article says of DeepSpeed. The authors' own
# pages (deepspeedai/DeepSpeed, commit edaa722) say against what: throughput "of DeepSpeed (ZeRO-DP +
# Megatron-LM) over using Megatron-LM alone", on V100s. For models that fit no GPU, Megatron was the
# state of the art of 2019: it cuts each layer over GPUs, and beyond one server its messages, several
# a layer, cross the slow network. ZeRO made that unnecessary. The 10 is no factor over one GPU,
# nor over data parallelism of a model that fits.
#
# One part can be repeated here: freed bytes hold sequences. In 16 MB, how many times as many fit
# with stage 3 as with data parallelism, on two ranks?

# %%
guess_times = 2.0  # your prediction

# %% [markdown]
# The model is a larger one now: 860,928 parameters in fp32, and 0.59 MB of activations for each
# sequence. By formula: what a rank holds is taken off, and the rest divided by a sequence's
# activations: (16 - 16 x 0.861) / 0.59, so 3 for data parallelism. The last column is the same with
# 64 ranks. The meter checks each batch:

# %%
from utils.experiments.zero_batch import FIT_HEADERS, batches_that_fit, fit_rows, peaks

fit = batches_that_fit(16e6, num_ranks=2)
table(FIT_HEADERS, fit_rows(16e6, num_ranks=2), "Sequences on each rank, in 16 MB")
reveal("Stage 3 fits", guess_times, fit[3] / fit[0], "times as many")
print(f"peak of stage 1 with the sequences of stage 2: {peaks({1: fit[2]})[1] / 1e6:.1f} MB")

# %% [markdown]
# (The formula is careful: gradients come as activations go. At its peak stage 1 needs no more than
# stage 2; the difference shows when gradients stay, as in accumulation.) Now the clock. What do
# those sequences buy? Two ranks, each stage with the batch that fits, in turn. (On busy cores the
# factors change by half from run to run, so do not rank the stages by them.) Here they are:

# %%
from utils.experiments.zero_batch import rates_of
from utils.zero_plots import draw_throughput

rates, curve = rates_of(fit)
figure = new_figure(6.4, 3.9)
draw_throughput(figure.subplots(), curve, fit, rates)
show(figure, "Throughput at the batch that fits", "More sequences a step share the messages and "
     "the update, which cost the same for any batch.")
for stage in (1, 2, 3):
    times = measured(f"{rates[stage] / rates[0]:.2f} times")
    print(f"stage {stage}, {fit[stage] / fit[0]:.0f} times the batch:", times, "the throughput")

# %% [markdown]
# Five times the batch is not five times the speed. Where a point lies below the dotted curve, the
# stage's own messages cost what they cost. And the factor depends on how tight memory was: with 14
# MB data parallelism fits no sequence at all, and any factor can be had. That is how to read "up to".
#
# ## 9. When it does not pay
#
# - **Stage 1**: only where the optimizer's state is small. Plain SGD has nothing to share.
# - **Small models.** At 16 bytes, GPT-2's 124 million parameters are 2 GB: nothing to save on a GPU
#   with 80.
# - **Slow links.** Stage 3 sends 1.5 times as much, and a forward pass waits for weights.
# - **Many micro-batches** with stages 2 and 3: M + 1 and 3M passes.
# - **When activations are the bill.** ZeRO does not touch them; checkpointing (lessons 04, 05) does.

# %% [markdown]
# ## Takeaways
#
# - Data parallelism stores everything N times; ZeRO trains the same model and, in stage 3, stores
#   it once.
# - Stages 1, 2, 3 hold 4 + 12/N, 2 + 14/N, 16/N bytes a parameter, and send 2, 2, 3 passes.
# - Flat, padded shards make any model divide; resharding is cutting ranges.
# - What no rank has alone needs a message: the norm for clipping is one.
# - "10 times" was against tensor parallelism across servers, on V100s; here memory buys a batch.
#
# **Next:** [lab 07](../labs/lab_07_zero.ipynb), then lesson 08, FSDP: stage 3 with its messages
# hidden behind compute.
