# %% [markdown]
# # Lab 08: free in time, look ahead, gather once, two levels, does it pay?
#
# Five exercises on [lesson 08](../notebooks/08_fsdp.ipynb), about 60 minutes. Complete each function
# and run the check right below it. The checks run your function on real ranks: they compare with
# one process, count what is whole and what is sent, and note what happens in which order. The first
# one takes some seconds. Run All works at any time; what you have not touched says *not attempted
# yet*. Stuck? Remove the `#` before a `hint`; a second, longer one is `hint("08.1", 2)`.
#
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# You may use any of these. Suffixes: P values of a flat tensor, padding included, S = P / N of one
# rank's shard. Inside of a rank `torch.distributed` is ready, and its default group holds all ranks:

# %%
import math
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.checks.truth_08_hybrid import Cluster, bytes_sent
from utils.checks.truth_08_micro import MicroUnit
from utils.checks.truth_08_pay import Job, gpt_job
from utils.checks.truth_08_store import Store
from utils.config import PRESETS, GPTConfig
from utils.measured import measured, table
from utils.model import build_gpt, next_token_loss
from utils.peers import SMALL
from utils.prices import price_spread
from utils.ranks import SlowLink, run_ranks
from utils.techniques.lane import Pending
from utils.techniques.ring import ring_all_gather, ring_reduce_scatter
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 08.1: free at the right moment
#
# *difficulty 3/5 - 12 minutes*
#
# The lesson's FSDP decides *when* weights come and go; here that is up to you. `gather(k)` makes
# layer k's weights whole, `free(k)` gives their memory back. Four kinds of hooks tell the moments:
#
# * `layer.register_forward_pre_hook(f)` calls `f(module, inputs)` before a layer's forward;
# * `layer.register_forward_hook(f)` calls `f(module, inputs, result)` after it;
# * `layer.register_full_backward_pre_hook(f)` calls `f(module, gradients)` before its backward;
# * `parameter.register_post_accumulate_grad_hook(f)` calls `f(parameter)` when a parameter's gradient
#   is complete. A layer has several.
#
# A hook returns None; anything else would replace what it was called with.

# %%
def free_in_time(
    layers: Sequence[nn.Module], gather: Callable[[int], None], free: Callable[[int], None]
) -> None:
    """Register hooks, such that layer k's weights are whole while it computes, and only then.

    It computes in forward and in backward. Each layer returns one tensor and trains all of its
    parameters; the first layer's input needs no gradient. No two layers are whole at the same
    time, and between steps none is. Steps repeat, and evaluations under no_grad come in between.
    """
    ### BEGIN SOLUTION
    def watch(k: int, layer: nn.Module) -> None:
        waiting = set()  # parameters without a gradient yet

        def before_backward(*_: object) -> None:
            waiting.update(layer.parameters())
            gather(k)

        def on_gradient(parameter: nn.Parameter) -> None:
            waiting.discard(parameter)
            if not waiting:
                free(k)

        layer.register_forward_pre_hook(lambda *_: gather(k))
        layer.register_forward_hook(lambda *_: free(k))
        layer.register_full_backward_pre_hook(before_backward)
        for parameter in layer.parameters():
            parameter.register_post_accumulate_grad_hook(on_gradient)

    for k, layer in enumerate(layers):
        watch(k, layer)
    ### END SOLUTION

# %% [markdown]
# A training step, an evaluation, and a second step, with a note of all gathers and frees:

# %%
check("08.1", free_in_time)
# hint("08.1")

# %% [markdown]
# Of the blocks of the lesson's small GPT, how many bytes are whole at the same time, at most?

# %%
def most_whole_bytes(rank, world_size, uses_hooks):
    model, tokens_BT = build_gpt(SMALL), torch.ones(2, 64).long()
    store = Store(model, model.blocks, rank, world_size)
    if uses_hooks:
        free_in_time(model.blocks, store.gather, store.free)
    else:
        for k in range(store.num_layers):
            store.gather(k)
    next_token_loss(model, tokens_BT, tokens_BT).backward()
    return store.most_bytes

if judge("08.1", free_in_time).status == "passed":
    for how, uses_hooks in (("gathered once, never freed:", False), ("your hooks:", True)):
        print(how, f"{run_ranks(most_whole_bytes, 2, uses_hooks)[0]:,} bytes")
else:
    print("Your turn: the bytes appear when exercise 08.1 passes.")

# %% [markdown]
# ## Exercise 08.2: prefetch the next layer
#
# *difficulty 3/5 - 12 minutes*
#
# Now messages shall travel while layers compute: `start_gather(k)` returns at once, and its result's
# `wait()` when layer k is whole. The lesson's version takes the order of the list for granted. Here
# a model computes its layers in an order of its own, say 2, 0, 1: always the same, on all ranks, but
# nobody knows it before the first forward, which therefore looks nowhere ahead. From then on the
# next layer is, in forward, the one that followed in the first forward, and in backward the one that
# came before. (PyTorch's FSDP2 finds backward's order in this way, too.)
#
# Your `free_in_time` may serve, once it passes: hooks that are registered later are called later.

# %%
def gather_ahead(
    layers: Sequence[nn.Module], start_gather: Callable[[int], Pending], free: Callable[[int], None]
) -> None:
    """As free_in_time, but while a layer computes, the next one's weights are under way.

    A layer's own gather is started before the next one's, and only its own is waited for. Each use
    of a layer takes one gather; at most two layers are whole or under way.
    """
    ### BEGIN SOLUTION
    order, pending = [], {}  # layers as they compute; what start_gather has returned

    def start(*wanted: int) -> None:
        for k in wanted:
            pending[k] = pending.get(k) or start_gather(k)

    def gather(k: int) -> None:
        if k not in order:
            order.append(k)
        start(k)
        pending[k].wait()

    def leave(k: int) -> None:
        free(k)
        del pending[k]

    free_in_time(layers, gather, leave)
    for k, layer in enumerate(layers):
        after = lambda *_, k=k: start(*order[order.index(k) + 1 :][:1])  # noqa: E731
        before = lambda *_, k=k: start(*order[: order.index(k)][-1:])  # noqa: E731
        layer.register_forward_pre_hook(after)
        layer.register_full_backward_pre_hook(before)
    ### END SOLUTION

# %% [markdown]
# Five layers in an order of their own, over a lane that delivers nothing before you wait for it:

# %%
check("08.2", gather_ahead)
# hint("08.2")

# %% [markdown]
# How long does a step take on a link of 60 MB/s, with and without a look ahead?

# %%
def step_ms(rank, world_size, looks_ahead):
    model, tokens_BT = build_gpt(GPTConfig(6, 4, 128, 64, 256)), torch.ones(16, 64).long()
    with SlowLink(60e6) as link:
        store = Store(model, model.blocks, rank, world_size, link)
        if looks_ahead:
            gather_ahead(model.blocks, store.start_gather, store.free)
        else:
            free_in_time(model.blocks, store.gather, store.free)
        for _ in range(3):  # the first step learns the order, the second warms up
            before_s = time.perf_counter()
            next_token_loss(model, tokens_BT, tokens_BT).backward()
    return 1e3 * (time.perf_counter() - before_s)

if judge("08.2", gather_ahead).status == judge("08.1", free_in_time).status == "passed":
    for how, looks_ahead in (("gathered when needed:", False), ("one layer ahead:", True)):
        print(how, measured(max(run_ranks(step_ms, 2, looks_ahead)), "ms"))
else:
    print("Your turn: the times appear when exercises 08.1 and 08.2 pass.")

# %% [markdown]
# ## Exercise 08.3: gather once for all micro-batches
#
# *difficulty 3/5 - 12 minutes*
#
# With eight micro-batches the lesson's FSDP gathers each layer sixteen times in a step and reduces it
# eight times. Where memory allows, weights and gradients stay whole between micro-batches, and each
# travels once. A *unit* has
#
# * `parameters`, in bf16, as are their gradients in `parameter.grad`;
# * `gather()` and `free()`, which give them their values, and take them away. `gather` does nothing
#   if there are values, be they old or new;
# * `reduce(gradients)`: whole gradients, one for each parameter, are averaged over ranks in fp32,
#   and this rank's part is added to its shard's gradient. The optimizer has the fp32 shards.
#
# Of eight bf16 gradients, what does their bf16 sum forget?

# %%
def step_on_micro_batches(
    units: list[MicroUnit], losses: list[Callable[[], Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """One update by the mean of all micro-batches of all ranks; each of `losses` runs one.

    Each unit is gathered once and reduced once. Micro-batches are added up in fp32, one sum for
    each parameter. When the optimizer begins, no unit is whole; in the end no gradient is left.
    """
    ### BEGIN SOLUTION
    for unit in units:
        unit.gather()
    sums = [[torch.zeros(p.shape) for p in unit.parameters] for unit in units]
    for loss in losses:
        loss().backward()
        for unit, totals in zip(units, sums, strict=True):
            for parameter, total in zip(unit.parameters, totals, strict=True):
                total += parameter.grad
                parameter.grad = None
    for unit, totals in zip(units, sums, strict=True):
        unit.free()
        unit.reduce([total / len(losses) for total in totals])
    optimizer.step()
    optimizer.zero_grad()
    ### END SOLUTION

# %% [markdown]
# Two steps on two ranks. What does the optimizer see, what was sent, what is left?

# %%
check("08.3", step_on_micro_batches)
# hint("08.3")

# %% [markdown]
# ## Exercise 08.4: two levels
#
# *difficulty 3/5 - 12 minutes*
#
# Links inside of a node are fast, between nodes slow. *Hybrid sharding* keeps one model in each node:
# of 6 ranks with 2 GPUs per node, ranks 0 and 1 share a first copy, 2 and 3 a second, 4 and 5 a
# third. Who needs whose weights, and whose gradients?
#
# `dist.new_group(ranks)` makes a group; *all* ranks call it, for every group, in the same order. A
# collective takes it as `group=`, and a ring wants the rank and the world size within it. (gloo's own
# reduce-scatter is an all-reduce and sends twice as much as the ring's.)

# %%
def make_hybrid(rank: int, world_size: int, gpus_per_node: int) -> tuple[Callable, Callable]:
    """Return (gather, mean) for a model of which each node, of consecutive ranks, has a copy.

    The k-th rank of a node has the k-th of gpus_per_node shards. `gather(flat_P, shard_S)` fills
    flat_P with the shards of this rank's node. `mean(shard_S, flat_P)` fills shard_S with this
    rank's shard of the mean over all ranks of flat_P. Weights never leave a node, and of gradients
    only what an all-reduce of one shard takes.
    """
    ### BEGIN SOLUTION
    place = rank % gpus_per_node
    for first in range(0, world_size, gpus_per_node):
        group = dist.new_group(list(range(first, first + gpus_per_node)))
        if first == rank - place:
            sharing = group
    for k in range(gpus_per_node):
        group = dist.new_group(list(range(k, world_size, gpus_per_node)))
        if k == place:
            replicas = group

    def gather(flat_P: Tensor, shard_S: Tensor) -> None:
        ring_all_gather(flat_P, shard_S, place, gpus_per_node, sharing)

    def mean(shard_S: Tensor, flat_P: Tensor) -> None:
        ring_reduce_scatter(shard_S, flat_P, place, gpus_per_node, sharing)
        dist.all_reduce(shard_S, group=replicas)
        shard_S /= world_size

    return gather, mean
    ### END SOLUTION

# %% [markdown]
# Three nodes of 2, two of 2, two of 3. Which bytes leave a node?

# %%
check("08.4", make_hybrid)
# hint("08.4")

# %% [markdown]
# Four ranks as one node, as two and as four: what does each hold, in bytes a parameter, and what does
# it send, in units of the model?

# %%
def shares(rank, world_size, gpus_per_node):
    gather, mean = make_hybrid(rank, world_size, gpus_per_node)
    cluster, flat_P = Cluster(world_size, gpus_per_node), torch.ones(2**14)
    shard_S = flat_P.chunk(gpus_per_node)[0].clone()
    sent = (*bytes_sent(cluster, rank, lambda: gather(flat_P, shard_S)),
            *bytes_sent(cluster, rank, lambda: mean(shard_S, flat_P)))
    return [num_bytes / flat_P.nbytes for num_bytes in sent]

if judge("08.4", make_hybrid).status == "passed":
    rows = [(f"{4 // n} x {n}", 16 / n, *run_ranks(shares, 4, n)[0]) for n in (4, 2, 1)]
    kinds = [f"{name}, {where}" for name in ("gather", "mean") for where in ("inside", "between")]
    table(["nodes x GPUs", "held", *kinds], rows, "One rank of four")
else:
    print("Your turn: the table appears when exercise 08.4 passes.")

# %% [markdown]
# ## Exercise 08.5: does it pay?
#
# *difficulty 4/5 - 12 minutes*
#
# Three questions before you rent. A `Job` has `num_layers` equal layers of `layer_values` parameters
# each and a root of `root_values`; on each GPU `num_tokens` tokens with `activation_bytes` each, and
# `memory_bytes`; and the rates `flops_per_s`, `link_bits_per_s` and `usd_per_hour` of one GPU.

# %% [markdown]
# * **Does it fit?** A GPU holds 16 bytes for each parameter of its shards; a layer and the root are
#   padded each by itself. At the peak there are besides, whole and with their padding: in bf16 the
#   root and two layers (one computes, one is ahead), and in `gradient_bytes` a value (2 or 4) one
#   layer's gradients. And the activations of all its tokens.
# * **Does it hide?** A layer's forward takes 2 FLOPs for each parameter and token, beside one gather
#   in bf16; its backward takes 4, beside a gather and a reduction, in `gradient_bytes` a value. Of
#   each message a GPU sends N - 1 shards. All layers count alike; the root's messages are left out.
# * **What does the rest cost?** Where messages take longer than the compute beside them, in forward
#   or in backward, all GPUs wait, and all are paid for.

# %%
def does_it_pay(job: Job) -> tuple[int, int, float] | None:
    """(fewest GPUs that fit, fewest tokens on each that hide all messages, dollars of waiting).

    Tokens and dollars are for that number of GPUs. The dollars are those of one step of all layers
    with job.num_tokens on each GPU. None if 4,096 GPUs are too few.
    """
    ### BEGIN SOLUTION
    for num_gpus in range(1, 4097):
        layer, root = -(-job.layer_values // num_gpus), -(-job.root_values // num_gpus)
        held_bytes = 16 * (job.num_layers * layer + root)
        whole_bytes = num_gpus * (2 * root + (2 * 2 + job.gradient_bytes) * layer)
        activation_bytes = job.activation_bytes * job.num_tokens
        if held_bytes + whole_bytes + activation_bytes <= job.memory_bytes:
            break
    else:
        return None
    value_s = 8 * (num_gpus - 1) * layer / job.link_bits_per_s  # a layer, one byte a value
    gather_s, reduce_s = 2 * value_s, job.gradient_bytes * value_s
    token_s = 2 * job.layer_values / job.flops_per_s
    num_tokens = math.ceil(max(gather_s / token_s, (gather_s + reduce_s) / (2 * token_s)))
    compute_s = job.num_tokens * token_s
    late_s = max(0.0, gather_s - compute_s) + max(0.0, gather_s + reduce_s - 2 * compute_s)
    usd = job.num_layers * late_s * num_gpus * job.usd_per_hour / 3600
    return num_gpus, num_tokens, usd
    ### END SOLUTION

# %% [markdown]
# Eight jobs. Three have so little memory that a byte more would take another GPU:

# %%
check("08.5", does_it_pay)
# hint("08.5")

# %% [markdown]
# Llama 2's shape with 70 billion parameters on H100s at half of their peak (assumed), at the median
# of prices listed on 2026-11-09, blocks run again in backward. What does waiting cost for each
# million tokens, and what makes it vanish?

# %%
def rent_row(num_tokens, gbit_per_s):
    usd_per_hour = price_spread("H100 SXM", "on-demand", as_of="2026-11-09").median
    shape = PRESETS["llama2-70b-shape"]
    job = gpt_job(shape, "H100 SXM", num_tokens, gbit_per_s * 1e9, usd_per_hour)
    num_gpus, fewest_tokens, usd = does_it_pay(job)
    usd_per_million = 1e6 * usd / (num_gpus * num_tokens)
    return num_tokens, gbit_per_s, num_gpus, fewest_tokens, f"${usd_per_million:.2f}"

if judge("08.5", does_it_pay).status == "passed":
    rows = [rent_row(num_tokens, gbit_per_s) for gbit_per_s in (400, 100)
            for num_tokens in (1024, 4096, 8192, 16_384)]
    headers = ["tokens a GPU", "Gbit/s a GPU", "GPUs", "tokens to hide all", "waiting"]
    table(headers, rows, "Dollars of waiting for a million tokens, computed")
else:
    print("Your turn: the table appears when exercise 08.5 passes.")

# %% [markdown]
# ## Where you stand
#
# All five passed? Then you can say of any sharded model what is whole when, what travels meanwhile,
# and what the waiting costs:

# %%
progress("lab_08")
