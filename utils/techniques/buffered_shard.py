"""A unit that computes in borrowed memory: buffers that layers take in turn.

How it works: a `Buffer` is allocated once and has an owner, the unit whose values it holds. The
parameters of all its users are views of it, each in its own shapes; autograd's saved views look
into it too, and find their unit's values because the unit is gathered again before its backward. A
buffer whose owner still computes is not given away: that would be the one mistake that no error
and no test of shapes would show, so it is refused here. Gradients are views as well: autograd adds
into the gradient buffer, which leaves from there as it is, and nothing is copied or allocated.

Left out: buffers as the target of a collective that NCCL has registered.
Shape suffixes: P values of the padded flat tensor, S values of one shard, P = N x S.
"""

from __future__ import annotations

import torch
from torch import Tensor

from utils.ranks.collectives import all_gather
from utils.ranks.gloo_bytes import textbook_bytes
from utils.techniques.flat import Unit
from utils.techniques.flat_shard import FlatShard
from utils.techniques.lane import Lane, Pending
from utils.techniques.sharding import Sharding, best_scatter


class Buffer:
    """`flat` holds the values of `owner`; `is_busy` while they are needed."""

    def __init__(self, num_values: int, dtype: torch.dtype, device: torch.device) -> None:
        self.flat = torch.zeros(num_values, dtype=dtype, device=device)
        self.owner: FlatShard | None = None
        self.is_busy = False
        self.leaving: Pending | None = None  # a message that still reads from it

    def take(self, owner: FlatShard) -> None:
        """Give the buffer to another unit. Raises RuntimeError while its owner computes with it."""
        if self.is_busy and self.owner is not owner:
            raise RuntimeError(
                f"{owner.unit.name} would overwrite {self.owner.unit.name}, which still computes: "
                "start its gather later, or use one buffer more."
            )
        if self.leaving is not None:
            self.leaving.wait()
            self.leaving = None
        self.owner = owner


class BufferedShard(FlatShard):
    """A `FlatShard` whose whole weights and gradients live in two buffers of somebody else's."""

    def __init__(
        self, unit: Unit, sharding: Sharding, lane: Lane, weights: Buffer, gradients: Buffer
    ) -> None:
        self.weights, self.gradients = weights, gradients
        super().__init__(unit, sharding, lane)
        is_exact = sharding.compute_dtype == torch.float32
        shard_S = self.shard_S.detach()
        self.low_S = shard_S if is_exact else shard_S.to(sharding.compute_dtype)
        self.sum_S = torch.zeros_like(shard_S)  # the optimizer's gradient, for good

    @property
    def is_whole(self) -> bool:
        """Whether the buffer holds this unit's values, or soon will."""
        return self.weights.owner is self

    @torch.no_grad()
    def start_gather(self) -> None:
        """Take the buffer until `free`, and begin to fill it unless it holds this unit already."""
        is_filled = self.is_whole
        self.weights.take(self)
        self.weights.is_busy = True
        if is_filled:
            return
        if self.low_S.dtype != torch.float32:
            self.low_S.copy_(self.shard_S)
        name, group = f"gather {self.unit.name}", self.sharding.group
        self._gathering = self.lane.issue(
            lambda: all_gather(self.flat_P, self.low_S, group), self.sent_bytes(self.low_S), name
        )

    def free(self) -> None:
        """Others may take the buffer; until one does, the values stay."""
        self.finish_gather()
        if self.is_whole:
            self.weights.is_busy = False

    def forget(self) -> None:
        """The values are old: the optimizer will change them."""
        self.free()
        if self.is_whole:
            self.weights.owner = None

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Before backward: gradients are to be added up in the buffer, from zero."""
        if self.gradients.owner is self:
            return
        self.gradients.take(self)
        self.gradients.is_busy = True
        flat_P = self._gradient_P()
        flat_P.zero_()
        if flat_P.dtype == self.sharding.compute_dtype:
            views = self.layout.views(flat_P)
            for parameter, view in zip(self.unit.parameters, views, strict=True):
                parameter.grad = view

    @torch.no_grad()
    def start_reduce(self) -> Pending:
        """Begin to add up the buffer over ranks; it is free for others when that is done."""
        self.take_gradients()  # a unit that this backward did not enter sends zeros
        flat_P = self._gradient_P()
        if flat_P.dtype != self.sharding.compute_dtype:
            for view, each in zip(self.layout.views(flat_P), self.unit.parameters, strict=True):
                if each.grad is not None:
                    view.copy_(each.grad)
        for parameter in self.unit.parameters:
            parameter.grad = None
        self.gradients.owner, self.gradients.is_busy = None, False
        part_S = self.layout.shard(flat_P, self.sharding.rank)
        between = textbook_bytes("all_reduce", part_S.nbytes, self.sharding.num_replicas)
        name, sent_bytes = f"reduce {self.unit.name}", self.sent_bytes(part_S) + between
        self.gradients.leaving = self.lane.issue(lambda: self._add_up(flat_P), sent_bytes, name)
        return self.gradients.leaving

    def drop_gradients(self) -> None:
        """Forget what has been added up since the last update."""
        super().drop_gradients()
        if self.gradients.owner is self:
            self.gradients.owner, self.gradients.is_busy = None, False

    def _place(self, device: torch.device) -> Tensor:
        return self.weights.flat[: self.layout.padded_values]

    def _gradient_P(self) -> Tensor:
        return self.gradients.flat[: self.layout.padded_values]

    @torch.no_grad()
    def _add_up(self, flat_P: Tensor) -> None:
        """The sum over ranks, not the mean: the division comes once, when all is added up."""
        sharding = self.sharding
        scatter = sharding.scatter or best_scatter(sharding.group)
        sum_S = self.layout.shard(flat_P, sharding.rank)  # in place: nobody needs the rest again
        if scatter is exact_sum_scatter:
            sum_S = torch.empty_like(self.sum_S)  # wider than the buffer's values
        scatter(sum_S, flat_P, sharding.rank, sharding.world_size, sharding.group)
        if sharding.num_replicas > 1:
            torch.distributed.all_reduce(sum_S, group=sharding.replica_group)
        if self.shard_S.grad is None:
            self.sum_S.copy_(sum_S)
            self.shard_S.grad = self.sum_S
        else:
            self.shard_S.grad += sum_S


def exact_sum_scatter(
    sum_S: Tensor, flat_P: Tensor, rank: int, world_size: int, group: object = None
) -> None:
    """A reduce-scatter that sends 16-bit values and adds them up in fp32.

    A ring rounds its sum at every hop; here each rank gets the others' parts as they are, so each
    value is rounded once, whatever the number of ranks. Sends (N - 1) / N of flat_P, as the ring.
    sum_S may be of a wider dtype than flat_P.
    """
    parts_P = torch.empty_like(flat_P)
    torch.distributed.all_to_all_single(parts_P, flat_P, group=group)
    sum_S.copy_(parts_P.view(world_size, -1).float().sum(dim=0))
