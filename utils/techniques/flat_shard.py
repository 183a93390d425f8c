"""One rank's shard of a unit's parameters, and the whole of them while somebody computes.

How it works: the fp32 shard is all that lasts; the optimizer works on it. `start_gather` allocates
the flat tensor, rounds the shard to the compute format and has a lane gather it; the parameters
are views of that flat tensor. `free` gives its memory back, but not the tensor itself, so what
autograd has saved for backward finds the weights again after the next gather. `start_reduce`
flattens the gradients, frees them, and has the lane average them over ranks into the shard's fp32
gradient: first a reduce-scatter in the group that shares the weights, then, in hybrid sharding, an
all-reduce of the shard between the groups.

Left out: gathers of a part of a unit.
Shape suffixes: P values of the padded flat tensor, S values of one shard, P = N x S.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.ranks.collectives import all_gather, reduce_scatter
from utils.techniques.flat import Unit
from utils.techniques.lane import Lane, Pending
from utils.techniques.ring import ring_reduce_scatter

Group = dist.ProcessGroup | None
Scatter = Callable[[Tensor, Tensor, int, int, Group], None]


@dataclass(frozen=True)
class Sharding:
    """How a model is spread and in which formats it computes; one object for all of its units.

    `world_size` ranks share the weights, in `group`; `rank` is this one's place in it. With hybrid
    sharding `num_replicas` such groups exist, and `replica_group` holds the ranks with this rank's
    place in each of them.
    """

    rank: int
    world_size: int
    group: Group = None
    num_replicas: int = 1
    replica_group: Group = None
    compute_dtype: torch.dtype = torch.float32
    reduce_dtype: torch.dtype = torch.float32
    scatter: Scatter | None = None  # None: the ring on gloo, NCCL's own on GPUs


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
        self._gathering: Pending | None = None
        for parameter, view in zip(unit.parameters, layout.views(self.flat_P), strict=True):
            parameter.grad = None
            parameter.data = view
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
        """Begin to fill the parameters from all ranks' shards, unless that has been done."""
        if self.is_whole:
            return
        self.allocate()
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

    def free(self) -> None:
        """Keep the shard only; until the next gather the parameters have shapes but no values."""
        self.finish_gather()
        self.flat_P.untyped_storage().resize_(0)

    @torch.no_grad()
    def start_reduce(self) -> Pending:
        """Give up the parameters' gradients and begin to average them into the shard's."""
        flat_P = self.flatten_gradients()
        mean_S = torch.empty_like(self.layout.shard(flat_P, 0))
        name, sent_bytes = f"reduce {self.unit.name}", self.sent_bytes(mean_S)
        return self.lane.issue(lambda: self._reduce(mean_S, flat_P), sent_bytes, name)

    def flatten_gradients(self) -> Tensor:
        """The parameters' gradients in one flat tensor, divided by the number of ranks."""
        gradients = [parameter.grad for parameter in self.unit.parameters]
        flat_P = self.layout.flatten(gradients, self.sharding.reduce_dtype)
        for parameter in self.unit.parameters:
            parameter.grad = None
        # Before the sum, for 16-bit sums could overflow.
        return flat_P.div_(self.sharding.world_size * self.sharding.num_replicas)

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


def _best_scatter(group: Group) -> Scatter:
    """gloo's own reduce-scatter sends twice as much as it must, so the ring replaces it there."""
    return ring_reduce_scatter if dist.get_backend(group) == "gloo" else _plain_scatter


def _plain_scatter(
    shard_S: Tensor, flat_P: Tensor, rank: int, world_size: int, group: Group
) -> None:
    reduce_scatter(shard_S, flat_P, group=group)
