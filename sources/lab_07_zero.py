# %% [markdown]
# # Lab 07: a bill to the byte, Adam in shards, gradients that leave, one norm, another world size
#
# Five exercises on [lesson 07](../notebooks/07_zero.ipynb), about 65 minutes. Complete each function
# and run the check right below it. The checks run your function on real ranks: they compare with
# one process, count bytes held and sent, and note what happens in which order. The first one takes
# some seconds. Run All works at any time; what you have not touched says *not attempted yet*. Stuck?
# Remove the `#` before a `hint`; a second, longer one is `hint("07.1", 2)`.
#
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# You may use any of these. Suffixes: P values of a flat tensor, padding included, and S = P / N of a
# shard, for N ranks. Inside of a rank `torch.distributed` is ready; its default group has all ranks:

# %%
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.measured import table
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.peers import SMALL, TrainingJob
from utils.peers.harness import measure_system, train_system
from utils.peers.ours import zero_system
from utils.ranks import TrafficLedger, run_ranks
from utils.techniques.flat import split_into_units
from utils.techniques.ring import ring_all_gather, ring_reduce_scatter
from utils.techniques.shard_files import read_file, read_manifest
from utils.techniques.zero import ZeroTwo
from utils.techniques.zero_checkpoint import save_shards
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 07.1: the bill, to the byte
#
# *difficulty 2/5 - 8 minutes*
#
# 16/N bytes per parameter is the bill of a model that divides evenly. A real one is cut into *units*
# (its layers, and the rest), and the flat tensor of each is padded to a multiple of N:
#
# * whole weights are kept in that flat tensor, with its padding, in stages 1 and 2;
# * whole gradients (stage 1) are the parameters' own tensors, without padding;
# * a shard, of whatever it is, is an N-th of the padded flat tensor.
#
# Two parameters of 7 and 4 values on three ranks: a flat tensor of 12, shards of 4.
#
# Messages are the lesson's reduce-scatters of gradients and all-gathers of weights. Each passes a
# ring: of a flat tensor's N slices, a rank sends N - 1. With several micro-batches, which are
# repeated?

# %%
def zero_bill(
    units: list[list[int]], stage: int, world_size: int, weight_bytes: int, num_micro: int = 1
) -> tuple[int, int]:
    """(bytes that a rank holds, bytes that it sends in a step) with ZeRO's stage 1, 2 or 3.

    units[k] has the number of values of each parameter of unit k. Weights, gradients and messages
    have weight_bytes (2 or 4) a value, Adam's two moments 4 each; 16-bit weights have an fp32
    master besides, sharded like the moments. Held: when the last backward of a step has ended and
    the optimizer has not begun. A step has num_micro micro-batches.
    """
    ### BEGIN SOLUTION
    num_messages = {1: 2, 2: num_micro + 1, 3: 3 * num_micro}[stage]
    state_bytes = 8 if weight_bytes == 4 else 12
    held_bytes = sent_bytes = 0
    for sizes in units:
        shard = -(-sum(sizes) // world_size)
        weights = shard if stage == 3 else world_size * shard
        gradients = sum(sizes) if stage == 1 else shard
        held_bytes += weight_bytes * (weights + gradients) + state_bytes * shard
        sent_bytes += num_messages * weight_bytes * (world_size - 1) * shard
    return held_bytes, sent_bytes
    ### END SOLUTION

# %% [markdown]
# Every stage, in 2 and 4 bytes, on 1 to 8 ranks:

# %%
check("07.1", zero_bill)
# hint("07.1")

# %% [markdown]
# What do the meter and the ledger say of the lesson's small GPT on three ranks? The meter finds a
# little more than you: a counter of steps, 4 bytes for each of its five units.

# %%
def bill_row(stage):
    job = TrainingJob(batch_size=6, num_steps=2)
    units = split_into_units(model := build_gpt(job.config), model.blocks, 3)
    mine = zero_bill([unit.layout.sizes for unit in units], stage, 3, 4)
    held = run_ranks(measure_system, 3, zero_system(stage), job)[0].held_bytes
    sent = run_ranks(train_system, 3, zero_system(stage), job)[0].sent_bytes
    return [stage, *(f"{size:,}" for size in (mine[0], held, mine[1], sent))]

if judge("07.1", zero_bill).status == "passed":
    rows = [bill_row(stage) for stage in (1, 2, 3)]
    table(["stage", "your bill", "the meter", "sent, your bill", "sent, the ledger"], rows,
          "Bytes of one rank of three, fp32")
else:
    print("Your turn: the table appears when exercise 07.1 passes.")

# %% [markdown]
# ## Exercise 07.2: Adam in shards
#
# *difficulty 3/5 - 15 minutes*
#
# Stage 1 without touching the model: its weights stay the tensors they are, and data parallelism
# has made their gradients equal on all ranks. All you replace is the optimizer. (torch's own is
# called `ZeroRedundancyOptimizer`.)
#
# Five weights of 27 values in all, on four ranks: padded to 28, cut into four shards of 7. A shard
# begins and ends inside of weights; to Adam that makes no difference, since it treats each value by
# itself. `ring_all_gather(flat_P, shard_S, rank, world_size)` fills flat_P with all N shards.

# %%
def shard_optimizer(
    weights: Sequence[nn.Parameter], make_optimizer: Callable, rank: int, world_size: int
) -> Callable[[], None]:
    """Return `step`, which updates `weights` from their gradients, the same on every rank.

    All weights one after another, in the order given, padded with zeros at the end, make N equal
    shards. make_optimizer([shard_S]) returns the optimizer of this rank's; call it once. `step`
    updates the shard, gathers all N, and writes them into the weights, some of which are
    transposed. Between steps a rank keeps its shard and its state, no flat tensor of all weights.
    """
    ### BEGIN SOLUTION
    sizes = [weight.numel() for weight in weights]
    num_values, num_shard = sum(sizes), -(-sum(sizes) // world_size)

    def my_shard(tensors: list[Tensor]) -> Tensor:
        flat_P = torch.zeros(world_size * num_shard)
        flat_P[:num_values] = torch.cat([tensor.detach().flatten() for tensor in tensors])
        return flat_P[rank * num_shard : (rank + 1) * num_shard].clone()

    shard_S = my_shard(weights)
    optimizer = make_optimizer([shard_S])

    def step() -> None:
        shard_S.grad = my_shard([weight.grad for weight in weights])
        optimizer.step()
        flat_P = torch.empty(world_size * num_shard)
        ring_all_gather(flat_P, shard_S, rank, world_size)
        for weight, part in zip(weights, flat_P[:num_values].split(sizes), strict=True):
            weight.data.copy_(part.view_as(weight))

    return step
    ### END SOLUTION

# %% [markdown]
# Three steps of Adam on three and four ranks. Are all weights right, and who keeps what?

# %%
check("07.2", shard_optimizer)
# hint("07.2")

# %% [markdown]
# How much of Adam's state is left on a rank, and what does a step send? (This is the gather alone.
# The all-reduce that made the gradients equal comes on top, twice as much. Stage 1 needs the half of
# that, since it reduce-scatters.)

# %%
def state_and_traffic(rank, world_size):
    optimizers, weights = [], list(build_gpt(SMALL).parameters())
    def make_optimizer(tensors):
        optimizers.append(torch.optim.Adam(tensors))
        return optimizers[-1]

    step = shard_optimizer(weights, make_optimizer, rank, world_size)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    with TrafficLedger() as ledger:
        step()
    state = optimizers[0].state_dict()["state"].values()
    return sum(each.nbytes for one in state for each in one.values()), ledger.bytes_sent

if judge("07.2", shard_optimizer).status == "passed":
    rows = [(n, *(f"{size:,}" for size in run_ranks(state_and_traffic, n)[0])) for n in (1, 2, 4)]
    table(["ranks", "bytes of Adam's state", "bytes sent in a step"], rows, "One rank")
else:
    print("Your turn: the table appears when exercise 07.2 passes.")

# %% [markdown]
# ## Exercise 07.3: gradients that leave
#
# *difficulty 4/5 - 15 minutes*
#
# Stage 2 for any model, without units: each gradient leaves by itself as soon as it is finished,
# and its memory is free again. As in exercise 06.3, the function that is given to
# `parameter.register_post_accumulate_grad_hook` is called, with the parameter, when its gradient is
# complete; batches may pass the layers in different order on different ranks, or leave some out; and
# all ranks must send in one order. New here: each gradient is padded, only a shard of the mean is
# kept, and several micro-batches add up in it.
#
# `scatter(sum_S, flat_P)` is given: it fills sum_S with this rank's N-th of the *sum* of all ranks'
# flat_P, which has N times as many values.

# %%
def scatter_gradients(
    model: nn.Module, shards: Sequence[Tensor], world_size: int, scatter: Callable
) -> Callable[[], None]:
    """Let gradients leave during backward; return `finish`, which is called after each backward.

    By then shards[k] has grown by this rank's shard of the k-th trained parameter's gradient: the
    mean over ranks, flat, padded by itself, zero where a batch did not use it. Call scatter once
    for each trained parameter, the last one first, as early as this order allows. A gradient that
    has left leaves nothing behind: parameter.grad is None, and no copy is kept.
    """
    ### BEGIN SOLUTION
    order = [p for p in model.parameters() if p.requires_grad][::-1]
    waiting, finished = [*zip(order, shards[::-1], strict=True)], set()

    def on_gradients(*parameters: nn.Parameter) -> None:
        finished.update(parameters)
        while waiting and waiting[0][0] in finished:
            parameter, shard_S = waiting.pop(0)
            flat_P, mean_S = torch.zeros(world_size * shard_S.numel()), torch.empty_like(shard_S)
            if parameter.grad is not None:
                flat_P[: parameter.numel()] = parameter.grad.flatten() / world_size
            parameter.grad = None
            scatter(mean_S, flat_P)
            shard_S += mean_S
    def finish() -> None:
        on_gradients(*order)
        finished.clear()
        waiting.extend(zip(order, shards[::-1], strict=True))
    for parameter in order:
        parameter.register_post_accumulate_grad_hook(on_gradients)
    return finish
    ### END SOLUTION

# %% [markdown]
# Steps of a model with two paths: its parameters are `first`, `left`, `right`, `last` and `shift`,
# and a frozen one; a batch may pass `left` and `right` in any order, or leave one out. Before each
# message the ranks tell each other what they are about to send, so that you read what did not match:

# %%
check("07.3", scatter_gradients)
# hint("07.3")

# %% [markdown]
# Of the lesson's small GPT, how many bytes of gradients live at the same time, at most?

# %%
def most_gradient_bytes(rank, world_size, uses_hooks):
    model, tokens_BT = build_gpt(SMALL), torch.ones(2, 64).long()
    shards = [torch.zeros(-(-p.numel() // world_size)) for p in model.parameters()]
    with MemoryMeter(model) as meter:
        if uses_hooks:
            scatter = partial(ring_reduce_scatter, rank=rank, world_size=world_size)
            finish = scatter_gradients(model, shards, world_size, scatter)
        next_token_loss(model, tokens_BT, tokens_BT).backward()
        if uses_hooks:
            finish()
    return meter.report().highest("gradients")

if judge("07.3", scatter_gradients).status == "passed":
    for how, uses_hooks in (("all at the end:", False), ("in hooks:", True)):
        print(how, f"{run_ranks(most_gradient_bytes, 2, uses_hooks)[0]:,} bytes")
else:
    print("Your turn: the bytes appear when exercise 07.3 passes.")

# %% [markdown]
# ## Exercise 07.4: one norm for all
#
# *difficulty 3/5 - 12 minutes*
#
# To clip, every rank must scale by the same factor, yet none has all gradients. The lesson's version
# could rely on zeros in the padding, on fp32, and on shards alone. This one cannot: the padding
# holds whatever was in memory, NaN included; shards may be fp16, where 300 squared is infinite; and
# a few small weights (those of norms, say) are kept whole on every rank, with the same gradient
# everywhere.

# %%
def clip_shards(
    shards: list[Tensor], sizes: list[int], whole: list[Tensor],
    rank: int, num_micro: int, max_norm: float,
) -> float:
    """Average over micro-batches, clip, all in place; return the global norm before clipping.

    shards[k]: this rank's S values of the k-th flat gradient, which has sizes[k] values; the rest,
    at its end, is padding. `whole`: gradients that every rank has, equal. All are means over ranks
    and *sums* over num_micro micro-batches; the mean of these is what is clipped. One message. A
    norm of 0 scales nothing.
    """
    ### BEGIN SOLUTION
    square = torch.zeros((), dtype=torch.float64)
    for shard_S, size in zip(shards, sizes, strict=True):
        num_mine = max(0, size - rank * shard_S.numel())
        square += shard_S[:num_mine].double().square().sum()
    if rank == 0:
        square += sum(gradient.double().square().sum() for gradient in whole)
    dist.all_reduce(square)
    norm = square.sqrt().item() / num_micro
    factor = min(1.0, max_norm / norm if norm else 1.0) / num_micro
    for gradient in (*shards, *whole):
        gradient *= factor
    return norm
    ### END SOLUTION

# %% [markdown]
# Five sets of gradients on three ranks, each beside its norm in one process:

# %%
check("07.4", clip_shards)
# hint("07.4")

# %% [markdown]
# ## Exercise 07.5: another world size
#
# *difficulty 4/5 - 15 minutes*
#
# Four ranks have saved their shards, tomorrow there are three machines. The lesson's `load_shards`
# opens all files on every rank: with 1,024 ranks that is a million reads. A rank needs only the
# files that its new shard overlaps.
#
# A unit of 10 values lay on four ranks as 3 + 3 + 3 + 1, the last one with two values of padding;
# on three ranks it will be 4 + 4 + 2. New rank 1 needs values 4 to 7: two from file 1, two from
# file 2. (A single number is a tensor, too: one without dimension.)

# %%
def reshard(
    open_file: Callable, sizes: list[int], num_files: int, rank: int, world_size: int
) -> list[dict]:
    """This rank's shard of each unit on world_size ranks, from the files of num_files ranks.

    open_file(r) returns old rank r's list: for unit k, of sizes[k] values, a dict of flat tensors
    ("master", "exp_avg", ...), a shard each, and of single numbers, alike in all files ("step").
    Return the same for the new shard, in memory of its own. Old padding may hold anything, new
    padding is 0. Open once each file that overlaps your shard of some unit, and no other; a rank
    with nothing but padding, in all units, opens any one, for the names.
    """
    ### BEGIN SOLUTION
    def overlaps(size: int) -> list[tuple[int, slice, slice]]:
        old, new, found = -(-size // num_files), -(-size // world_size), []
        for r in range(num_files):
            first = max(rank * new, r * old)
            last = min((rank + 1) * new, (r + 1) * old, size)
            if first < last:
                there = slice(first - r * old, last - r * old)
                found.append((r, there, slice(first - rank * new, last - rank * new)))
        return found
    needed = {r for size in sizes for r, _, _ in overlaps(size)} or {0}
    files, units = {r: open_file(r) for r in needed}, []
    for k, size in enumerate(sizes):
        units.append(dict(files[min(needed)][k]))
        for key, value in units[k].items():
            if isinstance(value, Tensor) and value.dim():
                units[k][key] = torch.zeros(-(-size // world_size), dtype=value.dtype)
                for r, there, here in overlaps(size):
                    units[k][key][here] = files[r][k][key][there]
    return units
    ### END SOLUTION

# %% [markdown]
# From 4 ranks to 3, from 3 to 8, and others, with a note of who opens what:

# %%
check("07.5", reshard)
# hint("07.5")

# %% [markdown]
# The real files of the lesson's `save_shards`, written by four ranks and read by three: are all
# weights there, and which files has each rank opened?

# %%
def train_and_save(rank, world_size, folder):
    model, tokens_BT = build_gpt(SMALL), torch.ones(2, 64).long()
    zero = ZeroTwo(model, model.blocks, torch.optim.Adam, rank, world_size)
    next_token_loss(model, tokens_BT, tokens_BT).backward()
    zero.step()
    masters = [unit.whole_masters().values() for unit in zero.units]
    place = save_shards(zero, folder, step=1)
    return place, [torch.cat([each.flatten() for each in unit]) for unit in masters]

def restored(rank, place, wholes_P):
    opened = []
    def open_file(old_rank):
        opened.append(old_rank)
        return read_file(place, read_manifest(place)["files"][old_rank])["units"]

    mine = reshard(open_file, [len(whole_P) for whole_P in wholes_P], 4, rank, 3)
    parts = [whole_P.split(len(one["master"])) for one, whole_P in zip(mine, wholes_P, strict=True)]
    pairs = [(one["master"], part[rank]) for one, part in zip(mine, parts, strict=True)]
    return rank, str(sorted(opened)), str(all(torch.equal(a[: len(b)], b) for a, b in pairs))

if judge("07.5", reshard).status == "passed":
    with tempfile.TemporaryDirectory() as folder:
        saved = run_ranks(train_and_save, 4, folder)[0]
        rows = [restored(rank, *saved) for rank in range(3)]
    table(["new rank", "files opened", "weights equal"], rows, "Four files, three ranks")
else:
    print("Your turn: the table appears when exercise 07.5 passes.")

# %% [markdown]
# ## Where you stand
#
# All five passed? Then a shard is no mystery: you can say what a rank holds, what it sends, and
# where each value lies on any number of ranks:

# %%
progress("lab_07")
