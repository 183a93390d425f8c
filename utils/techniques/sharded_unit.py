"""A unit's weights in one flat tensor, one shard of it a rank's own to update.

How it works: the parameters become views of `flat_P`. Beside it there is the shard's fp32 master,
which the optimizer updates; with fp32 weights master and shard are the same memory, with bf16
weights the master is a tensor of its own. Gradients are flattened, averaged over ranks by the
ring's reduce-scatter, and this rank keeps its shard of the mean. `free` gives the flat tensor's
memory back and `gather` brings it back, filled from all ranks' shards: autograd's saved views look
into the same storage, so backward finds the weights there.

Left out: sums in fp32 of bf16 gradients (`utils.techniques.fsdp` has them).
Shape suffixes: P values of the padded flat tensor, S values of one shard, P = N x S.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.techniques.flat import Unit
from utils.techniques.ring import ring_all_gather, ring_reduce_scatter

Group = dist.ProcessGroup | None


class ShardedUnit:
    """One rank's view of a unit. Making it moves the parameters' values into `flat_P`."""

    @torch.no_grad()
    def __init__(
        self, unit: Unit, rank: int, world_size: int, group: Group, dtype: torch.dtype
    ) -> None:
        self.unit, self.rank, self.world_size, self.group = unit, rank, world_size, group
        self.layout = layout = unit.layout
        self.flat_P = layout.flatten(unit.parameters, dtype)
        self.shard_S = layout.shard(self.flat_P, rank)
        if dtype == torch.float32:
            self.master_S = nn.Parameter(self.shard_S)
        else:
            exact_P = layout.flatten(unit.parameters, torch.float32)
            self.master_S = nn.Parameter(layout.shard(exact_P, rank).clone())
        self.gradient_S: Tensor | None = None
        for parameter, view in zip(unit.parameters, layout.views(self.flat_P), strict=True):
            parameter.grad = None
            parameter.data = view

    @torch.no_grad()
    def scatter_gradients(self) -> None:
        """Give up the parameters' gradients for this rank's shard of their mean over ranks."""
        flat_P = self.layout.flatten(  # no name for the list: it would keep them alive
            [parameter.grad for parameter in self.unit.parameters],
            self.flat_P.dtype,
            self.flat_P.device,
        )
        for parameter in self.unit.parameters:
            parameter.grad = None
        flat_P /= self.world_size  # before the sum: 16-bit sums could overflow
        mean_S = torch.empty_like(self.layout.shard(flat_P, 0))
        ring_reduce_scatter(mean_S, flat_P, self.rank, self.world_size, self.group)
        self.gradient_S = mean_S if self.gradient_S is None else self.gradient_S.add_(mean_S)

    def drop_gradients(self) -> None:
        """Forget what has been collected since the last update."""
        for parameter in self.unit.parameters:
            parameter.grad = None
        self.gradient_S = self.master_S.grad = None

    @torch.no_grad()
    def gather(self) -> None:
        """Fill the flat tensor, and with it the parameters, from all ranks' shards."""
        self.flat_P.untyped_storage().resize_(self.layout.padded_values * self.flat_P.itemsize)
        ring_all_gather(self.flat_P, self.shard_S, self.rank, self.world_size, self.group)

    def free(self) -> None:
        """Keep the shard only; until `gather` the parameters have shapes but no values."""
        if self.shard_S.untyped_storage()._cdata == self.flat_P.untyped_storage()._cdata:
            is_exact = self.shard_S.dtype == torch.float32
            self.shard_S = self.shard_S.clone()
            if is_exact:
                self.master_S.data = self.shard_S
        self.flat_P.untyped_storage().resize_(0)

    @property
    def is_whole(self) -> bool:
        """Whether the parameters have their values now."""
        return self.flat_P.untyped_storage().nbytes() > 0

    @torch.no_grad()
    def whole_masters(self) -> dict[nn.Parameter, Tensor]:
        """All ranks' masters, put together to the parameters in fp32."""
        flat_P = self.master_S.new_empty(self.layout.padded_values)
        ring_all_gather(flat_P, self.master_S.detach(), self.rank, self.world_size, self.group)
        return dict(zip(self.unit.parameters, self.layout.views(flat_P), strict=True))

    @torch.no_grad()
    def collect_gradient(self) -> None:
        """Hand the gradient's shard to the optimizer, in the master's precision."""
        if self.gradient_S is not None:
            self.master_S.grad, self.gradient_S = self.gradient_S.float(), None

    @torch.no_grad()
    def round_master(self) -> None:
        """After the update: the shard becomes the master, rounded to the weights' format."""
        self.master_S.grad = None
        if self.shard_S.dtype != torch.float32:
            self.shard_S.copy_(self.master_S)


def check_place(rank: int, world_size: int, group: Group) -> None:
    """Raise ValueError unless this is that rank of that many in the group."""
    there = dist.get_rank(group), dist.get_world_size(group)
    if (rank, world_size) != there:
        raise ValueError(
            f"This is rank {there[0]} of {there[1]} in the group, not rank {rank} of {world_size}: "
            "pass the rank and the world size of the group that shares the model."
        )


def round_the_rest(model: nn.Module, dtype: torch.dtype) -> None:
    """Buffers and frozen parameters take the weights' format too, whole on every rank."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
