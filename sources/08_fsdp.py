# %% [markdown]
# # FSDP: weights that come and go
#
# ZeRO's third stage (lesson 07) holds 16/N bytes a parameter, and waits for every message. FSDP is
# the same idea, arranged so that messages travel while layers compute. You read it as code, see it
# on a timeline, hold it against PyTorch's own `fully_shard`, and learn what "15-20 % more efficient
# than DeepSpeed" is worth. About 90 minutes; two cores are enough, no GPU needed.
#
# 1. [The bill of waiting](#1.-The-bill-of-waiting)
# 2. [FSDP in five hooks](#2.-FSDP-in-five-hooks)
# 3. [Naive: gather when needed](#3.-Naive:-gather-when-needed)
# 4. [Better: gather one layer ahead](#4.-Better:-gather-one-layer-ahead)
# 5. [Three dials](#5.-Three-dials)
# 6. [With autocast and checkpointing](#6.-With-autocast-and-checkpointing)
# 7. [The real one](#7.-The-real-one)
# 8. [Is FSDP faster than DeepSpeed?](#8.-Is-FSDP-faster-than-DeepSpeed?)
# 9. [Beyond this machine](#9.-Beyond-this-machine)
# 10. [When it does not pay](#10.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# ## 1. The bill of waiting
#
# Take Llama 2's shape with 7 billion parameters on 64 H100s, one sequence of 2,048 tokens each, in
# nodes of eight with 400 Gbit/s for each GPU. Each step moves the model three times, in bf16: weights
# for forward, weights again for backward, gradients. Lesson 06's simulator says: each such message
# takes 1.7 ms for one block; the block's forward takes 1.8 ms (at half of the chips' peak, which is
# assumed), its backward twice as long. If nobody computes while a message travels, what share of a
# step, in percent, is waiting?

# %%
guess_percent = 15  # your prediction

# %% [markdown]
# Now the whole step. First as lesson 07 did it, then with weights gathered one layer ahead:

# %%
from utils.experiments.llama_steps import FAST, SLOW, ddp_step, fsdp_step, gather_per_forward
from utils.predictions import reveal

naive, better = (fsdp_step(num_tokens=2048, ahead=ahead) for ahead in (0, 1))
reveal("Waiting", guess_percent, 100 * naive.exposed_s / naive.total_s, "%")
print(f"one layer ahead: {better.exposed_s / better.total_s:.0%}, with the same bytes")

# %% [markdown]
# Half of the rent pays for waiting, and nearly all of that can be hidden. How, is this lesson.
#
# ## 2. FSDP in five hooks
#
# As in lesson 07 the model is cut into units: each block, and the rest (the *root*). Each unit is one
# flat tensor, and a rank keeps an N-th of it, its *shard*, in fp32. Shards are all that lasts, and
# all that the optimizer sees. To gather is to allocate the flat tensor and to fill it from all ranks'
# shards. A *lane* does the sending. (Methods stand here without their class: these are `FlatShard`'s,
# the hooks further down are `FullySharded`'s.)
#
# In code:

# %%
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from utils.ranks.collectives import all_gather
from utils.ranks.gloo_bytes import textbook_bytes
from utils.techniques.flat_shard import _nan
from utils.techniques.lane import Pending
from utils.techniques.watch import tensors_in

# show: utils.techniques.flat_shard.FlatShard.start_gather

# %% [markdown]
# `issue` returns at once; `finish_gather` waits. The parameters are views of the flat tensor, so
# nothing is copied. To free is to give its memory back and keep the tensor: what autograd has saved
# for backward finds the weights there again after the next gather:

# %%
# show: utils.techniques.flat_shard.FlatShard.free without docstring

# %% [markdown]
# Gradients leave the same way. A unit's are flattened, divided, and sent off; the reduce-scatter
# leaves their mean's N-th at the shard:

# %%
# show: utils.techniques.flat_shard.FlatShard.start_reduce

# %% [markdown]
# The rest is timing. Hooks on each module call `_enter`, with `step` 1 in forward and -1 in backward.
# Whoever enters a unit starts the gathers of those that come next, and waits for its own only:

# %%
# show: utils.techniques.fsdp.FullySharded._enter

# %% [markdown]
# After forward a unit is freed, and a hook on its result will enter it again in backward. The root
# stays whole in between: it holds the output layer, which backward needs at once. Freeing it would
# buy nothing:

# %%
# show: utils.techniques.fsdp.FullySharded._after_forward

# %% [markdown]
# When the last gradient of a unit is there, its weights go and its gradients leave. At most two
# units' flat gradients exist at a time:

# %%
# show: utils.techniques.fsdp.FullySharded._after_backward

# %% [markdown]
# The model's file does not change, nor does the call. A small model for this lesson:

# %%
from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters
from utils.model import build_gpt, next_token_loss
from utils.ranks import TrafficLedger, run_ranks
from utils.techniques.fsdp import FullySharded
from utils.techniques.sharding import Sharding
from utils.timing import use_one_thread

use_one_thread()
config = GPTConfig(num_layers=5, num_heads=4, model_dim=128, context_length=32)
parameters, block = count_parameters(config).total, count_parameters(config).block
share = config.num_layers * block / parameters  # of the model that is in blocks
tokens_BT = torch.arange(64).view(2, 32)
print(f"{parameters:,} parameters, {share:.0%} of them in blocks")

# %% [markdown]
# What is one of its weights before a step, while its block computes, and after?

# %%
def look_at_a_weight(rank, world_size):
    model = build_gpt(config)
    weight, seen = model.blocks[2].feed_forward.widen.weight, []
    FullySharded(model, model.blocks, Sharding(rank, world_size))
    look = lambda *_: seen.append(weight.isnan().all().item())  # noqa: E731
    model.blocks[2].feed_forward.register_forward_pre_hook(look)
    look()
    next_token_loss(model, tokens_BT, tokens_BT).backward()
    look()
    return tuple(weight.shape), ["freed" if is_nan else "there" for is_nan in seen]

print(*run_ranks(look_at_a_weight, 2)[0])

# %% [markdown]
# It has its shape all the time, and its values while its block computes. (What has been freed reads
# as NaN, so that a mistake is seen.)
#
# ## 3. Naive: gather when needed
#
# To see messages on this machine, the lane is a slow link of 60 MB/s, and hooks note when each block
# computes. Blocks travel three times, the root twice, in fp32. How many milliseconds of messages is
# that on two ranks, and how many of them are waiting if, as in lesson 07, whoever sends waits?

# %%
from utils.experiments.gathers import WAYS, as_spans, quickest_step, step_s, waiting_s
from utils.measured import measured, table

rate = 60e6  # bytes per second
num_bytes = 4 * parameters * (3 * share + 2 * (1 - share)) / 2  # (N - 1) / N of each, N = 2
print(f"{num_bytes / 1e6:.2f} MB, at least {1e3 * num_bytes / rate:.0f} ms")
settings = (config, 24, rate)  # 24 sequences a rank
recorded = {way: quickest_step(way, *settings) for way in WAYS}
names = list(recorded)

def times(way):
    return [measured(1e3 * max(map(take, recorded[way])), "ms") for take in (step_s, waiting_s)]

print("{}: step {}, waiting {}".format(names[0], *times(names[0])))

# %% [markdown]
# What is not waiting is computing. If messages and computing went on at the same time, a step would
# take as long as the longer of the two.
#
# ## 4. Better: gather one layer ahead
#
# The change is one argument, and the lane's thread:
#
# ```python
# FullySharded(model, model.blocks, sharding, lane, prefetch=0)  # gather when needed
# FullySharded(model, model.blocks, sharding, lane, prefetch=1)  # new: one layer ahead
# ```
#
# The numbers in the bars are blocks, R is the root. What did each rank do, and when?

# %%
from utils.plots import new_figure, show
from utils.timeline_plot import draw_timelines

figure = new_figure(8.4, 4.8)
draw_timelines(figure, {way: as_spans(recorded[way]) for way in (names[0], names[2])})
show(figure, "Two ranks on a slow link", "Above, either the link or a processor works; below, "
     "the next block's weights travel while one computes, and gradients while backward goes on.")

# %% [markdown]
# In milliseconds, with a third way in between (each the quickest of seven steps):

# %%
table(["way", "step", "waiting"], [(way, *times(way)) for way in names], "One step on two ranks")

# %% [markdown]
# The second row sends gradients without waiting, but gathers only when needed: each gather queues
# behind the gradients that have just left, and little is won. In the third, what is left are the
# first gathers, before which there is nothing to compute, and whatever the link takes longer than a
# layer. What prefetch costs is memory. How many layers more, for each layer ahead?

# %%
from utils.experiments.fsdp_bill import fsdp_bill
from utils.peers import TrainingJob

job = TrainingJob(config, batch_size=4, learning_rate=1e-4, seed=1)
for prefetch in (0, 1, 2):
    print(f"{prefetch} ahead: a peak of {fsdp_bill(2, job, prefetch=prefetch).peak_mb:.2f} MB")
print(f"a block's weights: {4 * block / 1e6:.2f} MB")

# %% [markdown]
# One each. The bytes sent do not change, only when they travel.
#
# ## 5. Three dials
#
# **Free after forward, or not.** `reshard_after_forward=False` keeps the weights until backward:
# one gather fewer, and a whole model in between. That is ZeRO-2 in all but name, for the weights are
# still sharded between steps. On two and four ranks, in units of the model:

# %%
rows = []
for num_ranks in (2, 4):
    for frees in (True, False):
        bill = fsdp_bill(num_ranks, job, reshard_after_forward=frees)
        formula = (2 + share * frees) * (num_ranks - 1) / num_ranks
        rows.append([num_ranks, str(frees), bill.held_per_parameter, bill.peak_mb,
                     sum(bill.sent.values()), formula])
headers = ["ranks", "frees", "held, bytes a parameter", "peak, MB", "sent", "formula"]
table(headers, rows, "Weights freed after forward, or kept")

# %% [markdown]
# Held is 16/N either way (plus Adam's counters). Sent is 3 (N - 1) / N, less the root's second
# gather. Weights that are kept raise the peak by three blocks, for five are whole instead of two. A
# gather costs bytes on the wire, a whole model costs memory: choose by which is short.
#
# **Sixteen bits.** The shards stay fp32, but what is gathered is bf16, and a layer computes in it.
# Gradients are averaged in fp32:

# %%
from dataclasses import replace

from utils.peers.harness import largest_gap, one_process, train_system
from utils.peers.ours import fsdp_system, zero_system

oracle, rows = one_process(job, 2), []
for name, is_low in (("fp32", False), ("bf16, fp32 shards", True)):
    each = replace(job, low_precision=is_low)
    bill = fsdp_bill(2, each)
    gap, _ = largest_gap(run_ranks(train_system, 2, fsdp_system(), each)[0], oracle)
    sent = bill.of("all_gather", "send")
    rows.append([name, bill.held_per_parameter, bill.peak_mb, *sent, str(gap < 0.01)])
headers = ["computes in", "held", "peak, MB", "gathers", "gradients", "loss within 0.01"]
table(headers, rows, "Mixed precision on two ranks")

# %% [markdown]
# Gathers send half the bytes. The peak falls less: shards of weights, gradients and Adam's moments
# stay fp32, and so the optimizer loses nothing.
#
# **Two levels.** Links inside a node are fast, between nodes slow. *Hybrid sharding* spreads the
# model over neighbours only and keeps a replica in each node. Weights then never leave the node;
# between nodes travels an N-th of the gradients. Four ranks, in two "nodes" of two:

# %%
rows = []
for name, sharing in (("all four share", 4), ("2 x 2", 2)):
    bill = fsdp_bill(4, job, num_sharing=sharing)
    rows.append([name, bill.held_per_parameter, *bill.of("all_gather", "send", "all_reduce")])
headers = ["layout", "held", "gathers", "reduce-scatter", "all-reduce between"]
table(headers, rows, "Models sent by each of four ranks")

# %% [markdown]
# In the first row every message crosses between nodes on its way round the ring; in the second, only
# the last column does. The price is memory: 16/2 bytes a parameter instead of 16/4.
#
# ## 6. With autocast and checkpointing
#
# Lesson 02's autocast casts each weight once and keeps the copy for backward. FSDP frees the fp32
# weights, and the copies? Take the 7 billion parameters on 64 GPUs. How many bytes of weights does
# each GPU hold between forward and backward, when autocast runs over fp32 gathers?

# %%
llama = PRESETS["llama2-7b-shape"]
linear = count_parameters(llama).total - llama.vocab_size * llama.model_dim  # no embedding
guess_bytes = 2 * count_parameters(llama).total / 64  # your prediction: an N-th, in bf16

# %% [markdown]
# Ask the small model: of all tensors that autograd keeps for backward, and whose memory is still
# there after forward, which are weights in bf16?

# %%
from contextlib import nullcontext

from torch.autograd.graph import saved_tensors_hooks

from utils.techniques.autocast import ManualAutocast
from utils.techniques.segments import checkpointed, every

plain, again = tuple(range(5)), every(5, 1)  # plans of lesson 04: nothing, or every block

def kept_weights(rank, world_size, dtype, casts, plan):
    model, kept = build_gpt(config), []
    shapes = {s for p in model.parameters() for s in (p.shape, p.shape[::-1])}
    FullySharded(model, model.blocks, Sharding(rank, world_size, compute_dtype=dtype))
    pack = lambda tensor: kept.append(tensor) or tensor  # noqa: E731
    with checkpointed(model, plan), ManualAutocast() if casts else nullcontext():
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = next_token_loss(model, tokens_BT, tokens_BT)
    low = [t for t in kept if t.dtype is torch.bfloat16 and t.shape in shapes]
    there = [t for t in low if t.untyped_storage().nbytes() >= t.nbytes]  # not freed
    return sum(t.nbytes for t in there), loss.item()

# %% [markdown]
# Autocast over fp32 gathers; autocast with every block run again in backward; bf16 gathers:

# %%
ways = {"autocast": (torch.float32, True, plain),
        "autocast, blocks run again": (torch.float32, True, again),
        "bf16 gathers, no autocast": (torch.bfloat16, False, plain)}
for name, way in ways.items():
    print(f"{name}: {run_ranks(kept_weights, 2, *way)[0][0]:,} bytes of weights in bf16")
reveal("7 billion, on each GPU", guess_bytes, 2 * linear, "bytes")

# %% [markdown]
# (What is left in the last two lines belongs to the root, which stays.) The copies are whole, on
# every rank, whatever N is: FSDP frees what it has made, not what others have made from it. So let
# FSDP do the casting (bf16 gathers), or run blocks again. Does running again gather again?

# %%
def count_gathers(rank, world_size, plan):
    model = build_gpt(config)
    FullySharded(model, model.blocks, Sharding(rank, world_size))
    with TrafficLedger() as ledger, checkpointed(model, plan):
        next_token_loss(model, tokens_BT, tokens_BT).backward()
    return ledger.calls["all_gather"]

# %% [markdown]
# Counted, in one step:

# %%
once, twice = (run_ranks(count_gathers, 2, plan)[0] for plan in (plain, again))
print(f"gathers in a step: {once}, with every block run again: {twice}")

# %% [markdown]
# Two for each of five blocks and one for the root, both times: the second run and the backward of a
# block share one gather.
#
# ## 7. The real one
#
# PyTorch's FSDP2 is `fully_shard(module)`, called on each block and then on the model. It shards each
# parameter by rows rather than a flat tensor, and its weights are DTensors; the schedule is the one
# above. Same seed, same batches, five steps on two ranks, and one process beside them. The third row
# is FSDP2 with *our* reduce-scatter plugged in (`set_custom_reduce_scatter`), for gloo's own is an
# all-reduce. By how much will its traffic fall?

# %%
from functools import partial

from utils.peers.fsdp2 import Fsdp2System
from utils.peers.table import compare, print_comparison

formula = {"our FSDP": (8, 1 + share / 2), "FSDP2": (8, 1.5 + share / 2)}
formula["FSDP2, our ring"] = formula["our FSDP"]
systems = {"our FSDP": fsdp_system(), "FSDP2": Fsdp2System}
systems["FSDP2, our ring"] = partial(Fsdp2System, ring=True)
rows = compare(systems, 2, job)
print_comparison(rows, formula, "Five steps on two ranks, fp32")

# %% [markdown]
# Losses and weights agree, bytes held and sent are the formula's, and the ring takes half a model
# off the wire. Does it train the same weights, in every bit? And what is the time of a step, all
# three in turn, relative to FSDP2?

# %%
from utils.experiments.side_by_side import side_by_side

runs = {name: run_ranks(train_system, 2, system, job)[0] for name, system in systems.items()}
together = side_by_side(systems, 2, job, num_rounds=7)
for name in ("our FSDP", "FSDP2, our ring"):
    same = largest_gap(runs[name], runs["FSDP2"]) == (0, 0)  # of any loss, of any weight
    print(f"{name}: every bit equal: {same};", measured(together.sentence(name, "FSDP2")))

# %% [markdown]
# Two numbers have one sum in any order; with more ranks the last bits may differ. The times are those
# of processors, where FSDP2 overlaps nothing unless asked to; they say nothing of GPUs.
#
# **Checkpoints.** No rank has the whole model, so each writes what it has, and torch's *distributed
# checkpoint* (DCP) notes where each part lies. Any number of ranks reads what it needs. Our flat
# shards, without their padding, are DTensors of one dimension, so it takes them as well as FSDP2's:

# %%
import tempfile

from utils.peers.harness import batches, parts_of
from utils.techniques.fsdp_checkpoint import load_fsdp, save_fsdp

def two_steps(rank, world_size, parent, saved):
    system = fsdp_system()(build_gpt(config), rank, world_size, job)
    start, losses = load_fsdp(system.fsdp, system.optimizer, saved) if saved else 0, []
    for batch in list(batches(replace(job, num_steps=4)))[start : start + 2]:
        loss = system.backward(*parts_of(batch, rank, world_size, 1)[0], True).detach()
        system.step()
        dist.all_reduce(loss)
        losses.append(loss.item() / world_size)
    return losses, saved or save_fsdp(system.fsdp, system.optimizer, parent, step=2)

# %% [markdown]
# Four ranks train two steps and save. Four, two and one do the next two:

# %%
with tempfile.TemporaryDirectory() as parent:
    _, saved = run_ranks(two_steps, 4, parent, None)[0]
    print(saved.name, sorted({path.suffix or path.name for path in saved.iterdir()}))
    for num_ranks in (4, 2, 1):
        losses, _ = run_ranks(two_steps, num_ranks, parent, saved)[0]
        print(f"on {num_ranks}:", " ".join(f"{loss:.4f}" for loss in losses))

# %% [markdown]
# ## 8. Is FSDP faster than DeepSpeed?
#
# The article says FSDP is "15-20 % more efficient" than DeepSpeed. No source for that number was
# found. By construction there is little to expect: ZeRO-3 and FSDP are one algorithm with nearly
# the same bytes. The one published comparison that we found agrees. Hugging Face and IBM trained
# Granite 7B on four A100s, batch 8: FSDP 3,158.7 tokens per second and GPU, DeepSpeed 3,094.5
# (huggingface/blog, "From DeepSpeed to FSDP and back", June 2024), which is +2.1 %. And on this
# machine? Lesson 07's stage 3 and DeepSpeed's, beside the three systems above:

# %%
from utils.peers.deepspeed_import import deepspeed_problem
from utils.peers.deepspeed_zero import deepspeed_stage

problem = deepspeed_problem()
stages = {"our ZeRO-3": zero_system(3), "DeepSpeed stage 3": problem or deepspeed_stage(3)}
rows += compare(stages, 2, job)
print_comparison(rows, caption="The same five steps under five systems")

# %% [markdown]
# The same losses. "At least" (what it takes with a textbook reduce-scatter) is 1.5 for both ZeRO-3s,
# and less by the root's second gather for both FSDPs. Why DeepSpeed holds two bytes more, lesson 07
# said; it sends parameter by parameter, in more messages. In turn, against FSDP2:

# %%
systems = {"FSDP2": Fsdp2System, "our ZeRO-3": stages["our ZeRO-3"]}
systems |= {} if problem else {"DeepSpeed stage 3": stages["DeepSpeed stage 3"]}
together = side_by_side(systems, 2, job, num_rounds=7)
for name in list(systems)[1:]:
    print(f"{name}: {measured(together.sentence(name, 'FSDP2'))}")

# %% [markdown]
# Do not read this as "DeepSpeed is slow". A model this small measures Python around many small
# messages, on processors that neither library is made for, with DeepSpeed's prefetch off so that it
# shards at all. The honest reading: the algorithm gives neither an advantage. Differences come from
# defaults: precision of the masters, prefetch, bucket sizes, what is wrapped.
#
# ## 9. Beyond this machine
#
# torch can pretend: a fake process group of any size, tensors without values, and a tracker that
# says what each byte is for. Two blocks of GPT-2's shape with its embeddings (53 million parameters),
# bf16 over fp32 shards, one sequence a GPU. From 8 GPUs to 1,024, by what factor does the peak of
# each GPU fall?

# %%
guess_factor = 128  # your prediction

# %% [markdown]
# FSDP2 in the fake world, and beside it our formula, which runs nothing:

# %%
from utils.peers.fake_world import fake_world_bytes
from utils.predict_sharded import predict_sharded

gpt2, rows, peaks = replace(PRESETS["gpt2-124m"], num_layers=2), [], []
for num_ranks in (8, 64, 1024):
    fake = fake_world_bytes(gpt2, num_ranks, 1, low_precision=True)
    ours = predict_sharded(gpt2, "FSDP", num_ranks, 1, "bf16, fp32 shards")
    pairs = ((fake.held_bytes, ours.held.total), (fake.peak_bytes, ours.peak.total),
             (fake.peak["gathered weights"], ours.peak.gathered))
    rows.append([num_ranks, *(f"{size / 1e6:,.1f}" for pair in pairs for size in pair)])
    peaks.append(fake.peak_bytes)
headers = ["GPUs", "held", "formula", "peak", "formula", "of it gathered", "formula"]
table(headers, rows, "MB on one GPU: FSDP2, followed by torch, and our formula")
reveal("The peak falls by a factor of", guess_factor, peaks[0] / peaks[-1])

# %% [markdown]
# What is sharded falls as 1/N. What is not, soon is all there is: the root's gathered weights and
# the activations of one sequence, most of them logits over 50,257 tokens. More GPUs do not help
# there; shorter sequences do, and a loss that never has all logits at once. (At 1,024 FSDP2's padding
# shows: it cuts 768 rows into 1,024 parts, where ours cuts one flat tensor.)
#
# So what is the smallest number of GPUs that fits? For Llama 2's shapes on H100s with 80 GB, blocks
# run again, one sequence each, the formula says it at once. The explorer draws it for any model and
# chip. Choose `this lesson's`, fp32 and 2 sequences, and it shows what ran here as points:

# %%
from utils.predict_sharded import smallest_number_of_gpus
from utils.bytes_per_gpu_explorer import MeasuredPeak, bytes_per_gpu_explorer

for name in ("llama2-7b-shape", "llama2-70b-shape"):
    fewest = [smallest_number_of_gpus(PRESETS[name], stage, 80e9) for stage in ("ZeRO-2", "FSDP")]
    print(f"{name}: ZeRO-2 {fewest[0] or 'never'}, FSDP {fewest[1]}")
runs = {n: fsdp_bill(n, replace(job, batch_size=2 * n)) for n in (2, 4)}
here = [MeasuredPeak("this lesson's", "FSDP", n, 2, runs[n].peak_bytes) for n in (2, 4)]
bytes_per_gpu_explorer({**PRESETS, "this lesson's": config}, here)

# %% [markdown]
# ## 10. When it does not pay
#
# A layer's gather takes the same time however few tokens it is for; its forward does not. So one
# ratio decides: gather over forward. Above 1 no prefetch can hide it. (Backward has the same ratio:
# two messages beside twice the computing.) Llama's 7 billion on 64 GPUs again, on two networks,
# with plain data parallelism beside it (as if it fitted). *Exposed* is the share of the step in
# which a GPU waits:

# %%
rows = []
for name, network in (("400 Gbit/s", FAST), ("25 Gbit/s", SLOW)):
    for num_tokens in (512, 1024, 2048, 4096):
        fsdp, ddp = fsdp_step(num_tokens, 1, network), ddp_step(num_tokens, network)
        rows.append([name, num_tokens, f"{gather_per_forward(fsdp):.2f}",
                     *(f"{each.exposed_s / each.total_s:.0%}" for each in (fsdp, ddp)),
                     f"{fsdp.total_s / ddp.total_s:.2f}"])
headers = ["network", "tokens", "gather / forward", "FSDP exposed", "DDP exposed", "FSDP / DDP"]
table(headers, rows, "64 H100s at half of their peak, simulated")

# %% [markdown]
# - **When DDP fits.** It sends 2 where FSDP sends 3. Use FSDP for the memory, not for speed.
# - **On slow links.** Nothing hides three models a step there, and the slower the link, the nearer
#   you come to paying 3 for DDP's 2.
# - **With few tokens per GPU.** Adding GPUs at a fixed batch walks up this table: the ratio about
#   doubles with each halving. A longer sequence, more sequences, or micro-batches that keep their
#   weights walk down again.

# %% [markdown]
# ## Takeaways
#
# - FSDP is ZeRO-3 with hooks: gather before a layer computes, free it afterwards, reduce its
#   gradients while the next one computes; 16/N bytes a parameter stay.
# - One layer ahead hides the messages, as long as a layer computes longer than its gather takes.
# - A step sends 3 (N - 1)/N models, less the root's second gather, for the root stays whole; hybrid
#   sharding keeps gathers inside a node.
# - What is made from gathered weights is not freed with them: let FSDP cast, not autocast.
# - FSDP and DeepSpeed's ZeRO-3 are one algorithm: nearly equal bytes, and +2.1 % where somebody
#   measured.
#
# **Next:** [lab 08](../labs/lab_08_fsdp.ipynb), then lesson 09: each gather allocates, each free
# gives back. What does that churn cost, and what do YaFSDP's two buffers save?
