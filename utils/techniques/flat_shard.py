"""One rank's shard of a unit's parameters, and the whole of them while somebody computes.

How it works: the fp32 shard is all that lasts; the optimizer works on it. `start_gather` allocates
the flat tensor, rounds the shard to the compute format and has a lane gather it; the parameters
are views of that flat tensor. `free` gives its memory back, but not the tensor itself, so what
autograd has saved for backward finds the weights again after the next gather. `start_reduce`
flattens the gradients, frees them, and has the lane average them over ranks into the shard's fp32
gradient: first a reduce-scatter in the group that shares the weights, then, in hybrid sharding, an
all-reduce of the shard between the groups.

Reading memory that has been given back would end the process, so freed parameters are NaN.

Left out: gathers of a part of a unit.
Shape suffixes: P values of the padded flat tensor, S values of one shard, P = N x S.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.ranks.collectives import all_gather
from utils.ranks.gloo_bytes import textbook_bytes
from utils.techniques.flat import Unit
from utils.techniques.lane import Lane, Pending
from utils.techniques.sharding import Sharding as Sharding
from utils.techniques.sharding import best_scatter as _best_scatter


class FlatShard:
    """Making it moves this rank's part of the values into `shard_S` and frees the parameters."""

    @torch.no_grad()
    def __init__(self, unit: Unit, sharding: Sharding, lane: Lane) -> None:
        self.unit, self.sharding, self.lane = unit, sharding, lane
        self.layout = layout = unit.layout
        exact_P = layout.flatten(unit.parameters, torch.float32)
        shard_S = layout.shard(exact_P, sharding.rank).clone()
        self.is_trainable = any(each.requires_grad for each in unit.parameters)
        self.shard_S = nn.Parameter(shard_S, requires_grad=self.is_trainable)
        self.flat_P = self._place(exact_P.device)
        self.waiting_P: Tensor | None = None  # gradients of micro-batches that sent nothing
        self._gathering: Pending | None = None
        self._version = -1  # of the shard that has been gathered
        for parameter in unit.parameters:
            parameter.grad = None
        self._show(layout.views(self.flat_P))
        self.free()

    @property
    def whole_bytes(self) -> int:
        """Bytes of the flat tensor while it exists."""
        return self.layout.padded_values * self.sharding.compute_dtype.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether the parameters have their values, or soon will."""
        return self.flat_P.untyped_storage().nbytes() > 0

    @torch.no_grad()
    def start_gather(self) -> None:
        """Begin to fill the parameters from all ranks' shards, unless that has been done.

        An update of the shard since then makes it necessary again.
        """
        if self.is_whole and self._version == self.shard_S._version:
            return
        self.finish_gather()
        self.allocate()
        self._version = self.shard_S._version
        low_S = self.shard_S.detach().to(self.sharding.compute_dtype)
        name, group = f"gather {self.unit.name}", self.sharding.group
        self._gathering = self.lane.issue(
            lambda: all_gather(self.flat_P, low_S, group), self.sent_bytes(low_S), name
        )

    def finish_gather(self) -> None:
        """Wait until the parameters have their values."""
        if self._gathering is not None:
            self._gathering.wait()
            self._gathering = None

    def allocate(self) -> None:
        """Bring the flat tensor's memory back."""
        self.flat_P.untyped_storage().resize_(self.whole_bytes)
        self._show(self.layout.views(self.flat_P))

    def free(self) -> None:
        """Keep the shard only; until the next gather the parameters have shapes but no values."""
        self.finish_gather()
        if self.is_whole:
            nothing = _nan(self.flat_P.dtype, self.flat_P.device)
            self._show([nothing.expand(shape) for shape in self.layout.shapes])
            self.flat_P.untyped_storage().resize_(0)

    @torch.no_grad()
    def start_reduce(self) -> Pending:
        """Give up the parameters' gradients and begin to average them into the shard's."""
        flat_P = self.flatten_gradients()
        mean_S = torch.empty_like(self.layout.shard(flat_P, 0))
        between = textbook_bytes("all_reduce", mean_S.nbytes, self.sharding.num_replicas)
        name, sent_bytes = f"reduce {self.unit.name}", self.sent_bytes(mean_S) + between
        return self.lane.issue(lambda: self._reduce(mean_S, flat_P), sent_bytes, name)

    def flatten_gradients(self) -> Tensor:
        """The parameters' gradients in one flat tensor, divided by the number of ranks."""
        flat_P, self.waiting_P = self._add_gradients(), None
        # Before the sum, for 16-bit sums could overflow.
        return flat_P.div_(self.sharding.world_size * self.sharding.num_replicas)

    @torch.no_grad()
    def keep_gradients(self) -> None:
        """Add them up on this rank, whole, and not in fewer bits than they are reduced in."""
        if self.sharding.reduce_dtype != self.sharding.compute_dtype:
            self.waiting_P = self._add_gradients()

    def drop_gradients(self) -> None:
        """Forget what has been added up since the last update."""
        self.waiting_P = self.shard_S.grad = None
        for parameter in self.unit.parameters:
            parameter.grad = None

    def sent_bytes(self, part_S: Tensor) -> int:
        """What this rank sends in a gather or a reduce-scatter of such parts."""
        return (self.sharding.world_size - 1) * part_S.nbytes

    @torch.no_grad()
    def whole_values(self) -> dict[nn.Parameter, Tensor]:
        """All ranks' shards in fp32, put together to the parameters; all ranks call it."""
        flat_P = self.shard_S.new_empty(self.layout.padded_values)
        all_gather(flat_P, self.shard_S.detach(), self.sharding.group)
        return dict(zip(self.unit.parameters, self.layout.views(flat_P), strict=True))

    def _place(self, device: torch.device) -> Tensor:
        return torch.empty(
            self.layout.padded_values, dtype=self.sharding.compute_dtype, device=device
        )

    def _show(self, values: list[Tensor]) -> None:
        """Let the parameters have these values; their identity and their hooks stay."""
        for parameter, value in zip(self.unit.parameters, values, strict=True):
            parameter.data = value

    def _add_gradients(self) -> Tensor:
        """Flat, in the format of messages, with those that wait; the parameters' own are freed."""
        gradients = [parameter.grad for parameter in self.unit.parameters]
        sharding, device = self.sharding, self.flat_P.device
        flat_P = self.layout.flatten(gradients, sharding.reduce_dtype, device)
        for parameter in self.unit.parameters:
            parameter.grad = None
        return flat_P if self.waiting_P is None else self.waiting_P.add_(flat_P)

    @torch.no_grad()
    def _reduce(self, mean_S: Tensor, flat_P: Tensor) -> None:
        sharding = self.sharding
        scatter = sharding.scatter or _best_scatter(sharding.group)
        scatter(mean_S, flat_P, sharding.rank, sharding.world_size, sharding.group)
        if sharding.num_replicas > 1:
            dist.all_reduce(mean_S, group=sharding.replica_group)
        exact_S = mean_S.float()
        if self.shard_S.grad is None:
            self.shard_S.grad = exact_S
        else:
            self.shard_S.grad += exact_S


@cache
def _nan(dtype: torch.dtype, device: torch.device) -> Tensor:
    """One value, shown in the place of all that have been freed."""
    return torch.full((), torch.nan, dtype=dtype, device=device)
