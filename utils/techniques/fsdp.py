"""FSDP: a layer's weights exist only while it computes, and the next layer's are on their way.

How it works: the model is cut into units, each layer and the rest (the root). Hooks on the modules

    gather a unit before its forward, free it after            (reshard_after_forward)
    gather it again before its backward, free it after         the root stays whole in between
    average its gradients over ranks, each rank keeps a shard  reduce-scatter, during backward

Whoever enters a unit also starts the gather of the one that comes next, in forward the following
and in backward the preceding one, so that a lane (`utils.techniques.lane`) carries messages while
layers compute. With `reshard_after_forward=False` weights stay until their backward: one gather
fewer, more memory (ZeRO-2 instead of ZeRO-3). `no_sync` keeps gradients whole and sends nothing;
its `keep_weights` also spares the gathers of all micro-batches but the first.

The model's file does not change and neither does the call: `model(tokens)`. The optimizer gets
`parameters()`, fp32 shards. A checkpoint's second forward and its backward share one gather.

Left out: weights that no rank can hold at the start, offload to the processor.
Source: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel" (arXiv
2304.11277).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from utils.techniques.clipping import clip_by_global_norm
from utils.techniques.data_parallel import broadcast_model
from utils.techniques.flat import split_into_units
from utils.techniques.flat_shard import FlatShard, Sharding
from utils.techniques.lane import InlineLane, Lane, Pending
from utils.techniques.watch import BackwardWatch


class FullySharded:
    """Shards `model` in place: each of `layers` is a unit, the rest is one more.

    `prefetch` is how many units ahead gathers are started; 0 starts each when it is needed.
    Raises ValueError for a negative prefetch or a model without anything to train.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], sharding: Sharding,
        lane: Lane | None = None, reshard_after_forward: bool = True, prefetch: int = 1,
    ) -> None:  # fmt: skip
        if prefetch < 0:
            raise ValueError(f"prefetch must be 0 or more, not {prefetch}.")
        self.model, self.sharding, self.lane = model, sharding, lane or InlineLane()
        self.reshard_after_forward, self.prefetch = reshard_after_forward, prefetch
        self._syncs, self._keeps_weights = True, False
        self._reducing: list[Pending] = []
        broadcast_model(model, sharding.group)
        if sharding.num_replicas > 1:
            broadcast_model(model, sharding.replica_group)
        units = split_into_units(model, layers, sharding.world_size)
        if not units:
            raise ValueError("The model has no parameter that requires a gradient: nothing to do.")
        frozen = split_into_units(model, layers, sharding.world_size, is_frozen=True)
        self.shards = [self.make_shard(unit) for unit in units]
        self.frozen = [self.make_shard(unit) for unit in frozen]
        self.watch = BackwardWatch(model, units, self._after_backward, on_end=self._end_backward)
        self._modules = [m for m in (model, *layers) if self._of(m)]  # the order of forward
        for module in self._modules:
            module.register_forward_pre_hook(self._before_forward)
            module.register_forward_hook(self._after_forward)

    def make_shard(self, unit: Any) -> FlatShard:
        """One unit's shard; a variant of FSDP makes another kind."""
        return FlatShard(unit, self.sharding, self.lane)

    def parameters(self) -> list[nn.Parameter]:
        """This rank's fp32 shards: what the optimizer is made from."""
        return [shard.shard_S for shard in self.shards]

    def clip(self, max_norm: float) -> Tensor:
        """Scale gradients to a global norm of at most `max_norm`; returns the norm before."""
        gradients = [each.grad for each in self.parameters() if each.grad is not None]
        return clip_by_global_norm(gradients, max_norm, self.sharding.group)

    def whole_parameters(self) -> list[Tensor]:
        """The fp32 values of all parameters, in the model's order, on every rank."""
        whole: dict[nn.Parameter, Tensor] = {}
        for shard in (*self.shards, *self.frozen):
            whole.update(shard.whole_values())
        return [whole[each] for each in self.model.parameters()]

    @contextmanager
    def no_sync(self, keep_weights: bool = False) -> Iterator[None]:
        """Backward in here adds gradients up on this rank, whole, and sends none of them."""
        before = self._syncs, self._keeps_weights
        self._syncs, self._keeps_weights = False, keep_weights
        try:
            yield
        finally:
            self._syncs, self._keeps_weights = before

    def _of(self, module: nn.Module) -> list[FlatShard]:
        """The shards of a module: one that trains, one that is frozen, or both."""
        return [each for each in (*self.shards, *self.frozen) if each.unit.module is module]

    def _enter(self, module: nn.Module, step: int) -> None:
        """The module is about to compute; those `step` further come next."""
        place = self._modules.index(module)
        if place == 0 and step < 0:  # in backward the root is the first, and stays to the end
            place = len(self._modules)
        for ahead in range(self.prefetch + 1):
            following = place + step * ahead
            if 0 <= following < len(self._modules):
                for shard in self._of(self._modules[following]):
                    shard.start_gather()
        if module is self.model:
            for shard in self._of(module):
                shard.start_gather()
        for shard in self._of(module):
            shard.finish_gather()

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        self._enter(module, -1 if self.watch.in_backward else 1)
        frozen = [each for each in self.frozen if each.unit.module is module]
        if frozen:  # no gradient will tell that they are done with; the input's does
            for leaf in tree_leaves(args):
                if isinstance(leaf, Tensor) and leaf.requires_grad:
                    leaf.register_hook(lambda _: [each.free() for each in frozen] and None)

    def _after_forward(self, module: nn.Module, args: Any, result: Any) -> None:
        if self.watch.in_backward:  # a checkpoint's second forward: backward comes at once
            return
        needs_backward = False
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                needs_backward = True
                leaf.register_hook(lambda _: self._enter(module, -1))
        stays = module is self.model or not self.reshard_after_forward
        if not (stays and needs_backward) and not self._keeps_weights:
            for shard in self._of(module):
                shard.free()

    def _after_backward(self, index: int) -> None:
        """All gradients of a unit are there, on this rank."""
        shard = self.shards[index]
        if not self._keeps_weights:
            shard.free()
        if self._syncs:
            self._wait_for_reductions(but=1)
            self._reducing.append(shard.start_reduce())

    def _wait_for_reductions(self, but: int = 0) -> None:
        """Flattened gradients of at most `but` units may still be under way."""
        while len(self._reducing) > but:
            self._reducing.pop(0).wait()

    def _end_backward(self) -> None:
        self._wait_for_reductions()
        if not self._keeps_weights:
            for shard in (*self.shards, *self.frozen):
                shard.free()


def group_of_two_levels(
    rank: int, world_size: int, num_sharing: int
) -> tuple[Any, Any]:
    """(the group that shares weights, the group of replicas) of a rank; all ranks call it.

    Neighbours share: ranks 0 .. num_sharing - 1 are the first group. Raises ValueError unless
    `num_sharing` divides the world size.
    """
    if num_sharing < 1 or world_size % num_sharing:
        raise ValueError(
            f"{world_size} ranks cannot form groups of {num_sharing}: take a divisor."
        )
    mine: dict[str, Any] = {}
    for first in range(0, world_size, num_sharing):
        group = torch.distributed.new_group(list(range(first, first + num_sharing)))
        if first <= rank < first + num_sharing:
            mine["sharing"] = group
    for place in range(num_sharing):
        group = torch.distributed.new_group(list(range(place, world_size, num_sharing)))
        if rank % num_sharing == place:
            mine["replicas"] = group
    return mine["sharing"], mine["replicas"]
