# %% [markdown]
# # Lab 06: fewer hops, better buckets, one message, half the bytes
#
# Five exercises on [lesson 06](../notebooks/06_data_parallel.ipynb), about 85 minutes. Complete
# each function and run the check right below it. The checks run your function on real ranks: they
# compare every rank with one process, read the ledger, and note in which order things happen. The
# first one takes some seconds. Run All works at any time; what you have not touched says *not
# attempted yet*. Stuck? Remove the `#` before a `hint`; a second, longer one is `hint("06.1", 2)`.

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# You may use any of these. Inside of a rank `torch.distributed` is ready, and its default group
# holds all ranks:

# %%
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.checks.truth_06_buckets import Link, end_s, gpt_gradients
from utils.checks.truth_06_compression import drift_in_roundings, gradients_NP, simulated_KP
from utils.config import PRESETS, GPTConfig
from utils.measured import measured, table
from utils.model import build_gpt, next_token_loss
from utils.ranks import SlowLink, TrafficLedger, run_ranks
from utils.ranks.collectives import all_gather
from utils.simulate import assign_buckets
from utils.techniques.buckets import StartSum
from utils.techniques.data_parallel import broadcast_model
from utils.techniques.ring import chunked_ring_all_reduce
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 06.1: fewer hops
#
# *difficulty 4/5 - 20 minutes*
#
# The lesson's ring sends as few bytes as possible, in 2 (N - 1) messages: 126 for 64 ranks, and
# each costs a latency. *Halving and doubling* takes 2 log2(N), here 12. Ranks swap in pairs, at
# distance N/2, then N/4, down to 1: of four, rank 1 swaps with 3, then with 0. In each swap a rank
# sends one half of the piece that it is in charge of, adds what comes to the other half, and is
# from then on in charge of that half alone. At the end it has 1/N of the sum, complete. The same
# swaps backwards hand the finished pieces out.
#
# A model has dozens of gradients, most of them small; one such run must serve them all.

# %%
def swap(send: Tensor, receive: Tensor, partner: int) -> None:
    """Send to a partner while receiving from it; the sizes may differ."""
    to, back = dist.P2POp(dist.isend, send, partner), dist.P2POp(dist.irecv, receive, partner)
    for work in dist.batch_isend_irecv([to, back]):
        work.wait()

def mean_in_few_hops(tensors: Sequence[Tensor], rank: int, world_size: int) -> None:
    """Each tensor becomes its mean over ranks, in place, in 2 log2(N) messages for all together.

    The N = world_size ranks are a power of two. The tensors have one dtype, any shape, also empty
    or transposed, and need not divide evenly. Each rank sends 2 (N - 1) / N of the bytes.
    """
    ### BEGIN SOLUTION
    sizes = [tensor.numel() for tensor in tensors]
    flat_P = torch.cat([tensor.reshape(-1) for tensor in tensors])
    start, end, distance, swaps = 0, sum(sizes), world_size // 2, []
    while distance:
        partner, middle = rank ^ distance, (start + end) // 2
        halves = flat_P[start:middle], flat_P[middle:end]
        kept, given = halves if rank < partner else halves[::-1]
        start, end = (start, middle) if rank < partner else (middle, end)
        received = torch.empty_like(kept)
        swap(given, received, partner)
        kept += received
        swaps.append((kept, given, partner))
        distance //= 2
    flat_P[start:end] /= world_size
    for kept, given, partner in reversed(swaps):
        swap(kept, given, partner)
    for tensor, part in zip(tensors, flat_P.split(sizes), strict=True):
        tensor.copy_(part.view_as(tensor))
    ### END SOLUTION

# %% [markdown]
# Lists of odd sizes on 2, 4 and 8 ranks. Are the means exact, and what does the ledger say?

# %%
check("06.1", mean_in_few_hops)
# hint("06.1")

# %% [markdown]
# For which sizes is it worth it? Messages and bytes are counted on 8 ranks; the time is computed
# from them, for a network of 10 microseconds and 50 GB/s. (What this leaves out: a ring's partners
# are neighbours, partners at distance N/2 share the long cables.)

# %%
def count(rank, world_size, all_reduce):
    tensor = torch.ones(2**12)
    with TrafficLedger() as ledger:
        all_reduce(tensor, rank, world_size)
    return ledger.calls["send"], ledger.bytes_sent / tensor.nbytes

def cells(all_reduce):
    num_messages, share = run_ranks(count, 8, all_reduce)[0]
    times = [1e6 * (num_messages * 10e-6 + share * size / 50e9) for size in (2**12, 2**20, 2**28)]
    return num_messages, share, *(f"{time:,.0f}" for time in times)

if judge("06.1", mean_in_few_hops).status == "passed":
    mine = cells(lambda tensor, *where: mean_in_few_hops([tensor], *where))
    rows = [("ring", *cells(chunked_ring_all_reduce)), ("halving and doubling", *mine)]
    table(["all-reduce", "messages", "tensors sent", "4 KiB", "1 MiB", "256 MiB"], rows,
          "Eight ranks, times in microseconds")
else:
    print("Your turn: the table appears when exercise 06.1 passes.")

# %% [markdown]
# ## Exercise 06.2: the best buckets
#
# *difficulty 3/5 - 15 minutes*
#
# Small buckets leave early, but each pays the latency; large ones pay it once, but wait for their
# last gradient. Take two gradients that are finished after 1 and 2 ms and travel for 1 ms each. With
# a latency of 0.5 ms, one bucket arrives at 2 + 0.5 + 2 = 4.5 ms, and of two buckets the second at
# 2.5 + 0.5 + 1 = 4 ms. With a latency of 2 ms it is 6 against 7.
#
# torch's caps (1 MiB, then 25 MiB) know neither network nor model. Given both, the best buckets can
# be computed. There are 2^(n - 1) ways to cut n gradients, too many to try for GPT-2's 148:

# %%
def best_buckets(
    ready_s: list[float], num_bytes: list[int], message_s: Callable[[int], float]
) -> list[int]:
    """How many gradients each bucket holds, so that the last message arrives as early as possible.

    Gradient k has num_bytes[k] bytes and is finished ready_s[k] seconds after backward began;
    these times never fall. Buckets take the gradients in this order. A message leaves when all of
    its bucket is finished and the message before has arrived; it takes message_s(its bytes).
    """
    ### BEGIN SOLUTION
    best = [(0.0, [])]  # the earliest end for the first j gradients, and the buckets that reach it
    for j, finished_s in enumerate(ready_s, start=1):
        ends = []
        for i, (before_s, counts) in enumerate(best):
            seconds = message_s(sum(num_bytes[i:j]))
            ends.append((max(before_s, finished_s) + seconds, [*counts, j - i]))
        best.append(min(ends))
    return best[-1][1]
    ### END SOLUTION

# %% [markdown]
# Six chains of gradients, played on the lesson's simulator:

# %%
check("06.2", best_buckets)
# hint("06.2")

# %% [markdown]
# GPT-2 (124 million parameters, 16 sequences) at 400 TFLOP/s, by ring or by halving on the network
# of above. How much of the communication comes after backward, and why do 256 ranks in a ring want
# so few buckets?

# %%
ready_s, num_bytes = gpt_gradients(PRESETS["gpt2-124m"], batch_size=16, flops_per_s=4e14)
caps = [len(bucket) for bucket in assign_buckets(num_bytes[::-1])]

def exposed_row(num_ranks, way, num_messages):
    link = Link(num_messages * 10e-6, 50e9 * num_ranks / (2 * (num_ranks - 1)))
    mine = best_buckets(list(ready_s), list(num_bytes), link)
    late = (end_s(ready_s, num_bytes, link, counts) - ready_s[-1] for counts in (caps, mine))
    return num_ranks, way, *(f"{1e3 * seconds:.1f} ms" for seconds in late), str(mine)

if judge("06.2", best_buckets).status == "passed":
    rows = [exposed_row(8, "ring", 14), exposed_row(8, "halving", 6),
            exposed_row(256, "ring", 510), exposed_row(256, "halving", 16)]
    table(["ranks", "all-reduce", "torch's caps", "your buckets", "gradients in each"], rows,
          "Communication after backward")
else:
    print("Your turn: the table appears when exercise 06.2 passes.")

# %% [markdown]
# ## Exercise 06.3: hooks that send
#
# *difficulty 4/5 - 20 minutes*
#
# Overlap without buckets: `parameter.register_post_accumulate_grad_hook(function)` calls the
# function, with the parameter, as soon as its gradient is complete. Batches may pass the layers in
# different order on different ranks, or leave some out; weights may be tied or frozen. A message
# meets whatever the other ranks send at the same place in *their* order, right or wrong.
# `start_sum(tensor)` begins to sum a tensor over ranks, in place; its result has wait(). The
# training loop calls your `finish()` after each backward.

# %%
def overlap_gradients(model: nn.Module, world_size: int, start_sum: StartSum) -> Callable[[], None]:
    """Give all ranks rank 0's model; let gradients leave during backward; return `finish`.

    Each trained gradient is sent once a step, the last parameter's first, as early as this order
    allows. After `finish()` all are means over ranks; one that a rank's batch lacks counts as zero.
    """
    ### BEGIN SOLUTION
    broadcast_model(model)
    order = [p for p in reversed(list(model.parameters())) if p.requires_grad]
    finished, works = set(), []

    def on_gradients(*parameters: nn.Parameter) -> None:
        finished.update(parameters)
        while len(works) < len(order) and order[len(works)] in finished:
            gradient = order[len(works)].grad
            gradient /= world_size
            works.append(start_sum(gradient))

    def finish() -> None:
        for parameter in order:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        on_gradients(*order)
        for work in works:
            work.wait()
        finished.clear()
        works.clear()

    for parameter in order:
        parameter.register_post_accumulate_grad_hook(on_gradients)
    return finish
    ### END SOLUTION

# %% [markdown]
# Steps of a model with two paths, over a link that delivers nothing before you wait for it:

# %%
check("06.3", overlap_gradients)
# hint("06.3")

# %% [markdown]
# On a link of 60 MB/s, how long does a rank wait after backward, without your hooks and with them?

# %%
def waiting_ms(rank, world_size, uses_hooks):
    model, tokens_BT = build_gpt(GPTConfig(6, 4, 128, 64, 256)), torch.ones(16, 64).long()
    with SlowLink(60e6) as link:
        def one_after_another():
            for parameter in model.parameters():
                link.all_reduce(parameter.grad).wait()

        finish = one_after_another
        if uses_hooks:
            finish = overlap_gradients(model, world_size, link.all_reduce)
        for _ in range(2):  # the first step warms up
            model.zero_grad()
            next_token_loss(model, tokens_BT, tokens_BT).backward()
            before_s = time.perf_counter()
            finish()
    return 1e3 * (time.perf_counter() - before_s)

if judge("06.3", overlap_gradients).status == "passed":
    for how, uses_hooks in (("messages after backward:", False), ("in hooks:", True)):
        print(how, measured(max(run_ranks(waiting_ms, 2, uses_hooks)), "ms"))
else:
    print("Your turn: the times appear when exercise 06.3 passes.")

# %% [markdown]
# ## Exercise 06.4: the mean over all tokens
#
# *difficulty 3/5 - 15 minutes*
#
# A mean of means is right only if all parts are of one size. Texts are not: ranks and micro-batches
# have different numbers of tokens, and in a mean of means a token of a short micro-batch counts
# more. What is wanted is what one process would do with all tokens in one batch. Accumulate, send
# once, and clip what *all* ranks have found:

# %%
def step_on_all_tokens(
    model: nn.Module, optimizer: torch.optim.Optimizer,
    losses: list[Callable[[], tuple[Tensor, int]]], max_norm: float,
) -> float:
    """One update by the mean loss per token of all micro-batches of all ranks.

    Each of `losses` runs one micro-batch of this rank and returns the *sum* of its tokens' losses
    and the number of these tokens. Ranks differ in both, and one may have no micro-batch at all.
    Every gradient is sent once; the mean is clipped to `max_norm`, and its norm before clipping
    returned. No gradient is left.
    """
    ### BEGIN SOLUTION
    num_tokens = 0
    for loss in losses:
        summed, count = loss()
        summed.backward()
        num_tokens += count
    parameters = list(model.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    totals = [*(gradient.flatten() for gradient in gradients), torch.tensor([float(num_tokens)])]
    flat_P = torch.cat(totals)
    dist.all_reduce(flat_P)
    flat_P /= flat_P[-1].clone()
    parts = flat_P.split([parameter.numel() for parameter in parameters] + [1])
    for parameter, part in zip(parameters, parts, strict=False):
        parameter.grad = part.view_as(parameter)
    norm = clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return norm.item()
    ### END SOLUTION

# %% [markdown]
# Steps on two and three ranks. What does the optimizer see, and what was sent?

# %%
check("06.4", step_on_all_tokens)
# hint("06.4")

# %% [markdown]
# ## Exercise 06.5: half the bytes, nothing lost
#
# *difficulty 4/5 - 15 minutes*
#
# bf16 keeps 8 bits, and a gradient that is rounded the same way in each step is wrong by the same
# amount each time. *Error feedback* remembers what a rounding has lost and adds it to the next
# value that is rounded.
#
# Sums must not be rounded on the way, so rank r collects part r of all gradients, averages in fp32,
# and hands the mean out: `dist.all_to_all_single(collected, gradient)` and `all_gather(all_means,
# my_means)`. That makes two roundings, one before each. Each has its own memory:

# %%
def make_bf16_mean(num_values: int, rank: int, world_size: int) -> Callable[[Tensor], None]:
    """Return `mean_(gradient_P)`, which puts the mean over ranks into it, the same on every rank.

    gradient_P: `num_values` fp32 values, a multiple of world_size. Only bf16 travels, half the
    bytes of an fp32 ring. What each rounding loses is added before the next one.
    """
    ### BEGIN SOLUTION
    lost_P, lost_S = torch.zeros(num_values), torch.zeros(num_values // world_size)

    def rounded(values: Tensor, lost: Tensor) -> Tensor:
        wanted = values + lost
        sent = wanted.bfloat16()
        lost.copy_(wanted - sent.float())
        return sent

    def mean_(gradient_P: Tensor) -> None:
        parts_P = torch.empty(num_values, dtype=torch.bfloat16)
        dist.all_to_all_single(parts_P, rounded(gradient_P, lost_P))
        mean_S = parts_P.float().view(world_size, -1).mean(0)
        means_P = torch.empty(num_values, dtype=torch.bfloat16)
        all_gather(means_P, rounded(mean_S, lost_S))
        gradient_P.copy_(means_P)

    return mean_
    ### END SOLUTION

# %% [markdown]
# 32 steps with constant gradients. Does the sum of all means stay right, for half the bytes?

# %%
check("06.5", make_bf16_mean)
# hint("06.5")

# %% [markdown]
# How far off is the sum of the means, on two ranks, in units of what a single rounding of each kind
# may lose?

# %%
def my_means(rank, world_size, num_steps):
    gradients = gradients_NP(world_size)
    mean_, results = make_bf16_mean(gradients.shape[1], rank, world_size), []
    for _ in range(num_steps):
        results.append(gradients[rank].clone())
        mean_(results[-1])
    return torch.stack(results)

if judge("06.5", make_bf16_mean).status == "passed":
    mine = run_ranks(my_means, 2, 128)[0]
    plain = simulated_KP(2, 128, own="none", back="none")
    rows = [(k, *(f"{drift_in_roundings(each[:k], 2):.1f}" for each in (plain, mine)))
            for k in (1, 8, 32, 128)]
    table(["steps", "plain bf16", "with feedback"], rows, "Error of the sum")
else:
    print("Your turn: the table appears when exercise 06.5 passes.")

# %% [markdown]
# ## Where you stand
#
# All five passed? Then you can say of any data-parallel loop what it sends, when, and whether the
# ranks still train one model:

# %%
progress("lab_06")
