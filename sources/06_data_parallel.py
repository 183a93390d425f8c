# %% [markdown]
# # Data parallelism: many ranks, one model
#
# Two GPUs, half the batch each, the same model on both: how much faster, and at what price? This
# lesson runs *ranks*, processes that train together, inside the notebook. You write the messages
# between them from send and receive, build data parallelism from them, and hold it against torch's.
# Every byte that crosses is counted. About 90 minutes; two cores are enough, no GPU needed.
#
# 1. [The bill of a second rank](#1.-The-bill-of-a-second-rank)
# 2. [Collectives](#2.-Collectives)
# 3. [All-reduce, three times](#3.-All-reduce,-three-times)
# 4. [Naive data parallelism](#4.-Naive-data-parallelism)
# 5. [Better: buckets that travel during backward](#5.-Better:-buckets-that-travel-during-backward)
# 6. [Scaling on this machine](#6.-Scaling-on-this-machine)
# 7. [Thousands of GPUs, simulated](#7.-Thousands-of-GPUs,-simulated)
# 8. [When it does not pay](#8.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# `run_ranks(worker, n)` calls `worker(rank, world_size)` in n processes and returns what each of
# them returned. A worker may be defined in a cell. What it prints comes back labelled:

# %%
import torch
import torch.distributed as dist

from utils.ranks import run_ranks
from utils.timing import use_one_thread

use_one_thread()

def hello(rank, world_size):
    print(f"one of {world_size}")
    return rank * 10

run_ranks(hello, 2)

# %% [markdown]
# Each rank is a process with one thread, memory of its own, and no way to look into another's. It
# can only send bytes. And it can fail alone: rank 1 divides by zero while rank 0 waits for it.

# %%
from utils.ranks import RankError

def unlucky(rank, world_size):
    share = 1 / (1 - rank)
    dist.barrier()
    return share

try:
    run_ranks(unlucky, 2)
except RankError as error:
    print(str(error).splitlines()[0])

# %% [markdown]
# The error names the rank, and the other one was ended with it. No process is left behind.
#
# ## 1. The bill of a second rank
#
# A second GPU doubles the rent per hour. If the step took half the time, the run would cost the
# same. What it adds is communication: after each step all ranks must agree on the gradients, as
# many bytes as the model has weights, times four. Take GPT-2 with 124 million parameters on two
# GPUs. How many bytes must each rank send in a step, in fp32?

# %%
guess_bytes = 100e6  # your prediction

# %% [markdown]
# No rank can know the mean before it has sent what the other lacks. Section 3 derives how little
# is enough: 2 (N - 1) / N of the gradients, for N ranks:

# %%
from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters
from utils.predictions import reveal

def least_bytes(config, num_ranks):
    return 2 * (num_ranks - 1) / num_ranks * 4 * count_parameters(config).total

reveal("Each of 2 ranks sends", guess_bytes, least_bytes(PRESETS["gpt2-124m"], 2), "bytes")
ratio = least_bytes(PRESETS["gpt2-124m"], 64) / least_bytes(PRESETS["gpt2-124m"], 2)
print(f"each of 64 ranks sends {ratio:.2f} times as much")

# %% [markdown]
# From 2 ranks to 64 the bytes do not even double. That is why data parallelism scales at all.
#
# ## 2. Collectives
#
# Six patterns of messages are all that this course needs. The pictures come from a real run on
# three ranks; each starts with its own data:

# %%
from utils.collective_plot import draw_collectives, run_collectives
from utils.plots import new_figure, show

figure = new_figure(9, 4.2)
show(figure, "Six collectives", draw_collectives(figure, run_ranks(run_collectives, 3)))

# %% [markdown]
# An all-reduce is a reduce-scatter followed by an all-gather: look at the second row. Data
# parallelism needs the all-reduce; ZeRO and FSDP (lessons 07 and 08) use its two halves alone.
#
# ## 3. All-reduce, three times
#
# First the obvious way. Everyone sends its tensor to rank 0, which adds up and sends the sum back:

# %%
from torch import Tensor, nn

from utils.techniques.ring import Group, exchange

# show: utils.techniques.ring.gather_all_reduce

# %% [markdown]
# Rank 0 does all the work. Better: send to the right, receive from the left, and add what comes,
# until every tensor has been everywhere:

# %%
# show: utils.techniques.ring.whole_ring_all_reduce

# %% [markdown]
# Nobody is special now, but each rank sends N - 1 whole tensors. Third: cut the tensor into N
# chunks. In each hop a rank sends *one chunk*; on the first way round the chunks are summed, on the
# second the finished ones are handed out:

# %%
# show: utils.techniques.ring.chunked_ring_all_reduce

# %% [markdown]
# All three are right. A test of values cannot tell them apart; the *ledger* can. It counts every
# collective of a rank, and the bytes that the rank sent. With four ranks, how many times its tensor
# does each rank send in each way? One million values:

# %%
from utils.ranks import TrafficLedger
from utils.techniques import ring

NAMES = ("gather_all_reduce", "whole_ring_all_reduce", "chunked_ring_all_reduce")

def count_bytes(rank, world_size):
    sent = {}
    for name in NAMES:
        tensor = torch.full((2**20,), 1.0 + rank)
        with TrafficLedger() as ledger:
            getattr(ring, name)(tensor, rank, world_size)
        sent[name] = ledger.bytes_sent / tensor.nbytes
        assert torch.all(tensor == world_size * (world_size + 1) / 2)  # right on every rank
    return sent

by_rank = run_ranks(count_bytes, 4)

# %% [markdown]
# Rank by rank, in units of the tensor:

# %%
from utils.measured import measured, table

rows = [(name, *(f"{sent[name]:.2f}" for sent in by_rank)) for name in NAMES]
table(["all-reduce", "0", "1", "2", "3"], rows, "Tensors sent by ranks 0 to 3")

# %% [markdown]
# 1.5 is 2 (N - 1) / N. Less is not possible: each rank must receive, in some form, the N - 1 others'
# part of every value it hands out, and hand it out again. Is the ledger honest? It uses formulas;
# the kernel counts what was really written, 48 bytes of envelope around each message included:

# %%
def ask_the_kernel(rank, world_size):
    with TrafficLedger() as ledger:
        dist.all_reduce(torch.ones(2**20))
    return ledger.bytes_sent + ledger.envelope_bytes, ledger.kernel_bytes_sent()

agree = all(kernel in (formula, None) for formula, kernel in run_ranks(ask_the_kernel, 4))
print("formula and kernel agree on every rank:", agree)

# %% [markdown]
# To the byte (where the system tells: Linux does). Now a caveat. The library that carries these
# messages on processors, gloo, does its reduce-scatter as an all-reduce of which each rank keeps a
# slice. Half of our ring does it for half the bytes:

# %%
from utils.ranks.collectives import reduce_scatter

def two_reduce_scatters(rank, world_size):
    flat_P, shard_S = torch.ones(2**20), torch.empty(2**20 // world_size)
    with TrafficLedger() as theirs:
        reduce_scatter(shard_S, flat_P)
    with TrafficLedger() as ours:
        ring.ring_reduce_scatter(shard_S, flat_P, rank, world_size)
    return theirs.bytes_sent / flat_P.nbytes, ours.bytes_sent / flat_P.nbytes

print("gloo's and ours, in tensors:", run_ranks(two_reduce_scatters, 4)[0])

# %% [markdown]
# 1.5 against 0.75. NCCL, which GPUs use, does it right. From here on, whenever we count the bytes
# of a reduce-scatter, it is our ring that runs.
#
# ## 4. Naive data parallelism
#
# Equal weights at the start, and equal gradients in every step, keep the ranks equal. So: broadcast
# once, and after each backward average every gradient:

# %%
# show: utils.techniques.data_parallel.average_gradients

# %% [markdown]
# The oracle is one process with the whole batch, which adds the gradients of the same two parts. A
# worker that trains a few steps:

# %%
from utils.model import build_gpt, next_token_loss
from utils.techniques.data_parallel import broadcast_model

config = GPTConfig(4, 4, 64, 32, 256)
generator = torch.Generator().manual_seed(0)
steps = torch.randint(256, (4, 2, 8, 32), generator=generator)  # 4 steps, 8 sequences each

def train_naive(rank, world_size):
    model = build_gpt(config, seed=rank)  # different on purpose
    broadcast_model(model)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for tokens_BT, targets_BT in steps:
        part = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
        next_token_loss(model, tokens_BT[part], targets_BT[part]).backward()
        average_gradients(model, world_size)
        sgd.step()
        sgd.zero_grad()
    return [parameter.detach() for parameter in model.parameters()]

# %% [markdown]
# And one process that does the same:

# %%
def train_alone():
    model = build_gpt(config, seed=0)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for tokens_BT, targets_BT in steps:
        for half in (slice(0, 4), slice(4, 8)):
            next_token_loss(model, tokens_BT[half], targets_BT[half]).div(2).backward()
        sgd.step()
        sgd.zero_grad()
    return [parameter.detach() for parameter in model.parameters()]

# %% [markdown]
# Four steps later, do all weights agree, and in how many bits?

# %%
def same_bits(mine, others):
    return all(torch.equal(a, b) for a, b in zip(mine, others, strict=True))

alone = train_alone()
first, second = run_ranks(train_naive, 2)
print("both ranks equal:", same_bits(first, second))
print("equal to one process, in every bit:", same_bits(first, alone))

# %% [markdown]
# In every bit: two numbers have one sum, whatever the order. With more ranks the order of sums
# differs, and with it the last bits; the tests allow a few units in the last place.
#
# ## 5. Better: buckets that travel during backward
#
# Two things are wasteful. A small model has dozens of gradients, each a message that waits for its
# turn. And the network idles during backward, the processor during communication. So gradients are
# laid into a few large *buckets*, last layer first, and a hook on each parameter sends a bucket as
# soon as it is complete:

# %%
# show: utils.techniques.data_parallel.DataParallel._take

# %% [markdown]
# A bucket leaves only when all before it have left: the ranks may finish their gradients in
# different order, but the same buckets must meet. At the end of backward whatever still travels is
# waited for. Buffers come from rank 0 at every forward. A parameter that a step does not use would
# be waited for without end; it is named in an error, or counts as zero with `find_unused=True`.
#
# To see the overlap on this machine, whose ranks are neighbours in memory, the link is slowed down
# to 60 MB/s. What did each rank do, and when?

# %%
from utils.experiments.overlap import MODES, as_spans, recorded_step, step_s, waiting_s
from utils.timeline_plot import draw_timelines

picture_config = GPTConfig(6, 4, 128, 64, 256)
settings = (picture_config, 8, 60e6, 2**19)  # model, sequences, bytes per second, bucket
recorded = {mode: run_ranks(recorded_step, 2, mode, *settings) for mode in MODES}
figure = new_figure(7.5, 4.4)
draw_timelines(figure, {f"messages: {mode}": as_spans(each) for mode, each in recorded.items()})
show(figure, "Two ranks on a slow link", "After backward each rank waits for one message after "
     "another; overlapped, they travel while backward runs, and only the rest is waited for.")

# %% [markdown]
# The time in which a rank computes nothing is *exposed communication*, the only part that costs:

# %%
for mode, by_rank in recorded.items():
    step, waiting = max(map(step_s, by_rank)), max(map(waiting_s, by_rank))
    print(f"{mode}: step {measured(1e3 * step, 'ms')}, waiting {measured(1e3 * waiting, 'ms')}")

# %% [markdown]
# Does ours send what torch's `DistributedDataParallel` sends, and compute what it computes? Same
# seed, same batches, traffic of one step:

# %%
from torch.nn.parallel import DistributedDataParallel

from utils.techniques.data_parallel import DataParallel

def one_step(rank, world_size, kind, micro_batches=1, skips=False):
    model = build_gpt(config, seed=rank)
    network = DataParallel(model, world_size) if kind == "ours" else DistributedDataParallel(model)
    tokens_BT, targets_BT = (each.chunk(world_size)[rank] for each in steps[0])
    with TrafficLedger() as ledger:
        for number in range(micro_batches):
            last = number == micro_batches - 1
            with network.no_sync() if skips and not last else torch.enable_grad():
                next_token_loss(network, tokens_BT, targets_BT).div(micro_batches).backward()
    size = sum(parameter.nbytes for parameter in model.parameters())
    return [p.grad for p in model.parameters()], ledger.bytes_sent / size, ledger.calls

# %% [markdown]
# On two and four ranks:

# %%
rows = []
for num_ranks in (2, 4):
    ours, theirs = (run_ranks(one_step, num_ranks, kind)[0] for kind in ("ours", "torch's"))
    gap = max((a - b).abs().max().item() for a, b in zip(ours[0], theirs[0], strict=True))
    rows.append([num_ranks, 2 - 2 / num_ranks, ours[1], theirs[1], str(gap < 1e-7)])
table(["ranks", "formula", "ours", "torch's", "gradients agree"], rows, "Models sent in a step")

# %% [markdown]
# The step takes as long as torch's, too: 0.96 to 1.04 times on two ranks (Intel Xeon, fp32,
# 2026-11-24; `make bench` measures it on yours).
#
# Accumulation changes the bill. With four micro-batches a step, on two ranks: what is sent if every
# backward synchronises, and what if only the last one does (`no_sync`)?

# %%
each, last = (run_ranks(one_step, 2, "ours", 4, skips)[0][1] for skips in (False, True))
print(f"synchronising each time: {each:.2f} times the model, once: {last:.2f}")

# %% [markdown]
# ## 6. Scaling on this machine
#
# The article compares GPUs with bakers: more of them finish the cake sooner. Two measurements tell
# how much sooner. *Weak* scaling gives each rank the same batch: ideal is the same time. *Strong*
# scaling splits one batch: ideal is half the time. What efficiency do you expect on two cores?

# %%
guess_efficiency = 1.0  # your prediction for weak scaling

# %% [markdown]
# One rank and two ranks in turn, round after round:

# %%
from utils.experiments.scaling import efficiency, scaling_rounds

weak = scaling_rounds(picture_config, batch_one=8, batch_each=8)
strong = scaling_rounds(picture_config, batch_one=8, batch_each=4)
reveal("Weak efficiency", guess_efficiency, efficiency(weak, 2, True)[1], is_measured=True)

# %% [markdown]
# Both, with quartiles:

# %%
from utils.experiments.scaling import scaling_cells

rows = [("weak", *scaling_cells(weak, 2, True)), ("strong", *scaling_cells(strong, 2, False))]
headers = ["scaling", "efficiency", "quartiles", "GPU-hours and dollars"]
table(headers, rows, "Two ranks against one")

# %% [markdown]
# The bakers' story is half of the truth. Wall-clock time falls; the bill does not: GPU-hours, and
# so dollars, rise by 1 / efficiency. More GPUs buy *time*. (Two ranks on two cores also share one
# memory and whatever else runs here; on a busy machine the figures say little.)
#
# And the batch changes. Two ranks with 8 sequences each make one step of 16. The usual rule scales
# the learning rate with the batch, linearly for SGD; it ends at a batch size above which further
# sequences tell the optimizer nothing new:

# %%
from utils.simulate import effective_batch, scaled_learning_rate, tokens_factor

for num_gpus in (1, 8, 64, 512):
    batch = effective_batch(num_gpus, 8)
    rate = scaled_learning_rate(1e-3, batch, 8, "square root")
    waste = tokens_factor(batch, critical_tokens=512)
    print(f"{num_gpus:>3} GPUs: batch {batch:>4}, Adam's rate {rate:.4f}, {waste:.2f}x the tokens")

# %% [markdown]
# (The last column assumes a critical batch of 512 sequences. It must be measured for each model;
# the formula is McCandlish et al. 2018, recalled, unverified.)
#
# ## 7. Thousands of GPUs, simulated
#
# A message of S bytes takes a latency plus S over the bandwidth. What are they here? Fitted to this
# machine's own all-reduces:

# %%
from utils.experiments.scaling import all_reduce_seconds
from utils.simulate import calibrate, median_error, traffic

def ring_traffic(num_bytes):
    return traffic("all-reduce", "ring", num_bytes, 2)

times = run_ranks(all_reduce_seconds, 2, [2**12, 2**15, 2**18, 2**20, 2**22])[0]
link = calibrate(times, ring_traffic)
print("latency:", measured(1e6 * link.latency_s, "microseconds"))
print("bandwidth:", measured(link.bytes_per_s / 1e9, "GB/s"))
print("median error of the fit:", measured(f"{median_error(link, times, ring_traffic):.0%}"))

# %% [markdown]
# Two numbers, and the timeline of a step follows: compute and communication are two streams, a
# bucket leaves when its last gradient is there. Predicted against measured, for the weak step:

# %%
from statistics import median

from utils.costs import training_flops
from utils.simulate import Cluster, collective_seconds, gpt_layers, overlapped, simulate

alone_s, together_s = (median(times) for times in zip(*weak, strict=True))
flops_per_s = training_flops(picture_config, 8, picture_config.context_length) / alone_s
cluster = Cluster(1, 2, link, link)
tasks = overlapped(gpt_layers(picture_config, 8, flops_per_s),
                   lambda size: collective_seconds("all-reduce", size, cluster=cluster))
timeline = simulate(tasks)
print("predicted:", measured(1e3 * timeline.total_s, "ms"),
      " measured:", measured(1e3 * together_s, "ms"))

# %% [markdown]
# What the prediction lacks is contention: two ranks share caches and memory here. Now published
# hardware. NVIDIA's Megatron-LM scaled a GPT-3 of 175 billion parameters from 96 to 4,608 H100s at
# a fixed batch, "leading to a reduction in MFU from 47% to 42%" (its README, commit d98e8a6,
# 2026-08-22). We fit one number, the utilisation at 96 GPUs, and predict the rest. What MFU will
# the simulator give at 4,608?

# %%
guess_mfu_percent = 45  # your prediction

# %% [markdown]
# Published and predicted:

# %%
from utils.simulate import predict_published

points = predict_published(calibrate_at=96)
rows = [(f"{p.num_gpus:,}", f"{p.published_mfu:.1%}", p.read_from, f"{p.predicted_mfu:.1%}")
        for p in points]
table(["GPUs", "published MFU", "read from its", "predicted"], rows, "Megatron-LM, strong scaling")
reveal("Predicted at 4,608", guess_mfu_percent, 100 * points[-1].predicted_mfu, "%")

# %% [markdown]
# Never too low, as it must be: the simulator has no stragglers, no contention and no pipeline
# bubble. It is closer than it deserves: fp32 gradients, micro-batches of one sequence and 48 GPUs a
# replica are assumptions. Strong scaling shrinks each GPU's work but not its messages. Your turn:
# where do 64 GPUs stop being worth it, when the network slows down or the batch shrinks?

# %%
from utils.scaling_explorers import scaling_explorer

scaling_explorer()

# %% [markdown]
# Efficiency and dollars from 8 to 4,096 GPUs, for GPT-2 with 1.5 billion parameters, 4 sequences a
# GPU, on two networks:

# %%
from dataclasses import replace

from utils.hardware import find_chip
from utils.simulate import LINKS, Setup, weak_scaling

fast = Setup(PRESETS["gpt2-1.5b"], 0.5 * find_chip("H100 SXM").peak_flops())
slow = replace(fast, between=replace(LINKS["InfiniBand 400 Gbit/s"], bytes_per_s=1.25e9))
counts = (8, 64, 512, 4096)
pairs = zip(weak_scaling(fast, counts, 4), weak_scaling(slow, counts, 4), strict=True)
rows = [(f"{a.num_gpus:,}", f"{a.efficiency:.0%}", f"${a.usd_per_billion_tokens(3.99):,.0f}",
         f"{b.efficiency:.0%}", f"${b.usd_per_billion_tokens(3.99):,.0f}") for a, b in pairs]
table(["GPUs", "at 400 Gbit/s", "a billion tokens", "at 10 Gbit/s", "a billion tokens"], rows,
      "H100s at 50 % of peak (assumed) and $3.99 an hour")

# %% [markdown]
# $3.99 is RunPod's on-demand price of 2026-11-09 (utils/data/rental_prices.csv).
#
# ## 8. When it does not pay
#
# - **When one GPU is enough.** Efficiency is at most 1: the cheapest run is on the fewest GPUs that
#   hold it. Pay for more only if the days matter.
# - **On slow links.** At 10 Gbit/s the table above pays several times over for waiting.
# - **For small models and batches**: their messages are latency, their compute is short.
# - **Past the useful batch**, where more GPUs only make more tokens necessary.
# - **When the model does not fit.** Every rank holds all of it; that is what ZeRO and FSDP change.

# %% [markdown]
# ## Takeaways
#
# - Equal weights, averaged gradients: that is all of data parallelism, bit for bit.
# - A chunked ring sends 2 (N - 1) / N of the gradients, hardly more for 64 ranks than for 2.
# - Buckets and hooks hide messages behind backward; only exposed communication costs.
# - `no_sync` sends once per step, not once per micro-batch.
# - More GPUs cut the wait, not the bill: dollars rise by 1 / efficiency.
#
# **Next:** [lab 06](../labs/lab_06_data_parallel.ipynb), then lesson 07, ZeRO: ranks that no longer
# hold everything.
