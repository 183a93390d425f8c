"""Trainings for the tests of FSDP: one worker that takes many, and the same run in one process.

As in `zero_runs`, the oracle adds gradients in the order of the ring, so that equal means every bit
on any number of ranks; here it knows both formats, and both ways to treat micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tests.zero_runs import Case, Run, adam, ring_means, trainable, value_of
from utils.peers import loss_of
from utils.ranks import SlowLink, TrafficLedger
from utils.techniques.fsdp import FullySharded
from utils.techniques.fsdp_formulas import FsdpOptions, layouts_of, sent_bytes
from utils.techniques.lane import InlineLane, Lane, ThreadLane
from utils.techniques.sharding import Sharding, group_of_two_levels


def fast_link() -> Lane:
    """A link whose bandwidth costs next to nothing, but which is another thread."""
    return SlowLink(1e9)


@dataclass(frozen=True)
class Way:
    """How FSDP trains."""

    options: FsdpOptions = field(default_factory=FsdpOptions)
    make_lane: Callable[[], Lane] = InlineLane
    low_reduce: bool = False
    num_sharing: int | None = None

    def reduce_dtype(self, case: Case) -> torch.dtype:
        return case.dtype if self.low_reduce else torch.float32


@dataclass(frozen=True)
class ShardedRun(Run):
    """Also: bytes whole after each step; what should be sent, but for frozen parameters."""

    whole: tuple[int, ...] = ()
    expected: int = 0


def ways(**options) -> Way:
    """A way with these options of `FsdpOptions`."""
    return Way(FsdpOptions(**options))


def threaded(way: Way) -> Way:
    return replace(way, make_lane=ThreadLane)


def train_all(rank: int, world_size: int, runs: list[tuple[Case, Way]]) -> list[ShardedRun]:
    """Each training, on this rank's part of every batch."""
    return [train_fsdp(rank, world_size, case, way) for case, way in runs]


def shard(model: nn.Module, rank: int, world_size: int, case: Case, way: Way) -> FullySharded:
    sharding = Sharding(
        rank, world_size, compute_dtype=case.dtype, reduce_dtype=way.reduce_dtype(case)
    )
    if way.num_sharing is not None:
        group, replicas = group_of_two_levels(rank, world_size, way.num_sharing)
        sharding = replace(
            sharding, rank=rank % way.num_sharing, world_size=way.num_sharing, group=group,
            num_replicas=world_size // way.num_sharing, replica_group=replicas,
        )  # fmt: skip
    options = way.options
    return FullySharded(
        model, model.blocks, sharding, way.make_lane(), options.reshard_after_forward,
        options.prefetch,
    )  # fmt: skip


def train_fsdp(rank: int, world_size: int, case: Case, way: Way) -> ShardedRun:
    model = case.model(seed=rank)  # different weights: the start must make them equal
    fsdp = shard(model, rank, world_size, case, way)
    optimizer, losses, norms, whole = adam(fsdp.parameters()), [], [], []
    torch.manual_seed(rank)
    for batch in case.batches():
        with TrafficLedger() as ledger:
            with case.around(model):
                losses.append(backward_fsdp(model, fsdp, batch, rank, world_size, case, way))
            sent = ledger.bytes_sent
            if case.max_norm is not None:
                norms.append(fsdp.clip(case.max_norm).item())
        whole.append(whole_bytes(fsdp))
        optimizer.step()
        optimizer.zero_grad()
    fsdp.lane.close()
    return ShardedRun(
        torch.stack(losses), fsdp.whole_parameters(), norms, sent, tuple(whole),
        formula(case, world_size, rank, way),
    )  # fmt: skip


def backward_fsdp(model, fsdp, batch, rank, world_size, case, way) -> Tensor:
    """All micro-batches of this rank; those before the last may send nothing."""
    losses = []
    for number, part in enumerate(micro_batches(batch, rank, world_size, case)):
        waits = way.options.no_sync and number < case.num_micro - 1
        with fsdp.no_sync(way.options.keep_weights) if waits else nullcontext():
            losses.append(one_backward(model, part, case))
    return torch.stack(losses).sum()


def micro_batches(batch: Tensor, part: int, num_parts: int, case: Case) -> tuple[Tensor, ...]:
    return batch.chunk(num_parts, dim=1)[part].chunk(case.num_micro, dim=1)


def one_backward(model: nn.Module, part: Tensor, case: Case) -> Tensor:
    loss = loss_of(model, *part) / case.num_micro
    loss.backward()
    return loss.detach()


def formula(case: Case, world_size: int, rank: int, way: Way) -> int:
    """What `fsdp_formulas` says that this rank sends in a step."""
    num_sharing = way.num_sharing or world_size
    options = replace(
        way.options,
        compute_bytes=case.dtype.itemsize,
        reduce_bytes=way.reduce_dtype(case).itemsize,
        num_micro_batches=case.num_micro,
        num_replicas=world_size // num_sharing,
    )
    layers, root = layouts_of(model := case.model(), model.blocks, num_sharing)
    return sent_bytes(layers, root, options, rank // num_sharing)


def whole_bytes(fsdp: FullySharded) -> int:
    """Memory of gathered weights that exists now."""
    return sum(each.flat_P.untyped_storage().nbytes() for each in (*fsdp.shards, *fsdp.frozen))


def one_process(case: Case, num_parts: int, way: Way | None = None) -> Run:
    """The same steps on one rank, with one thread as a rank has; losses of part 0."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _one_process(case, num_parts, way or Way())
    finally:
        torch.set_num_threads(before)


def _one_process(case: Case, num_parts: int, way: Way) -> Run:
    model = case.model()
    frozen = {p: p.detach().clone() for p in model.parameters() if not p.requires_grad}
    masters = [nn.Parameter(p.detach().float().clone()) for p in trainable(model)]
    model.to(case.dtype)
    optimizer, losses, norms = adam(masters), [], []
    for batch in case.batches():
        loss, means = _means(model, batch, num_parts, case, way)
        losses.append(loss)
        for master, mean in zip(masters, means, strict=True):
            master.grad = mean.float()
        if case.max_norm is not None:
            norms.append(nn.utils.clip_grad_norm_(masters, case.max_norm).item())
        optimizer.step()
        for weight, master in zip(trainable(model), masters, strict=True):
            weight.data.copy_(master)
    exact = frozen | dict(zip(trainable(model), masters, strict=True))
    parameters = [exact[p].detach() for p in model.parameters()]
    return Run(torch.stack(losses), parameters, norms)


def _means(model, batch, num_parts, case, way) -> tuple[Tensor, list[Tensor]]:
    """Part 0's loss, and each gradient's mean in the order of the messages."""
    losses, table = [], []  # by part, then by micro-batch
    for part in range(num_parts):
        table.append([])
        with case.around(model):
            for micro in micro_batches(batch, part, num_parts, case):
                losses.append(one_backward(model, micro, case))
                gradients = [value_of(p.grad, p).view_as(p) for p in trainable(model)]
                table[-1].append([each.to(way.reduce_dtype(case)) for each in gradients])
                model.zero_grad()
    if way.options.no_sync:
        table = [[added(row)] for row in table]
    if way.num_sharing:  # first the mean among neighbours, then that of the replicas
        groups = [table[i : i + way.num_sharing] for i in range(0, num_parts, way.num_sharing)]
        table = [
            [[each / len(rows) for each in added(rows)] for rows in zip(*group, strict=True)]
            for group in groups
        ]
    means = [ring_means(model, list(rows)) for rows in zip(*table, strict=True)]
    loss = torch.stack(losses[: case.num_micro]).sum()
    return loss, added([[each.float() for each in mean] for mean in means])


def added(rows: Sequence[list[Tensor]]) -> list[Tensor]:
    """Tensor by tensor, from the first row on."""
    return [sum(each[1:], each[0]) for each in zip(*rows, strict=True)]
