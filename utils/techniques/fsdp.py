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

Left out: weights that no rank can hold at the start, parameters frozen later, layers that only some
ranks run (they would gather alone) or that a `checkpoint_by_function` runs and some use in part.
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
from utils.techniques.flat import Unit, split_into_units
from utils.techniques.flat_shard import FlatShard
from utils.techniques.hooks import Calls, at_last_gradient, refuse_state_dict
from utils.techniques.lane import InlineLane, Lane, Pending
from utils.techniques.sharded_unit import check_place
from utils.techniques.sharding import Sharding
from utils.techniques.watch import BackwardWatch, tensors_in


class FullySharded:
    """Shards `model` in place: each of `layers` is a unit, the rest is one more.

    `prefetch` is how many units ahead gathers are started; 0 starts each when it is needed. The
    forward after a backward that an error has ended starts the step anew, without gradients.
    Raises ValueError for a negative prefetch, a rank or world size that is not the group's, or a
    model without anything to train.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], sharding: Sharding,
        lane: Lane | None = None, reshard_after_forward: bool = True, prefetch: int = 1,
    ) -> None:  # fmt: skip
        if prefetch < 0:
            raise ValueError(f"prefetch must be 0 or more, not {prefetch}.")
        check_place(sharding.rank, sharding.world_size, sharding.group)
        self.model, self.sharding, self.lane = model, sharding, lane or InlineLane()
        self.reshard_after_forward, self.prefetch = reshard_after_forward, prefetch
        self._syncs, self._keeps_weights, self._learns = True, False, True
        self._reducing: list[Pending] = []
        self._calls, self._to_differentiate = Calls(), set[nn.Module]()  # what backward will meet
        broadcast_model(model, sharding.group)
        if sharding.num_replicas > 1:
            broadcast_model(model, sharding.replica_group)
        if not (units := self.make_units(layers)):
            raise ValueError("The model has no parameter that requires a gradient: nothing to do.")
        frozen = split_into_units(model, layers, sharding.world_size, is_frozen=True)
        self.shards = [self.make_shard(unit) for unit in units]
        self.frozen = [self.make_shard(unit) for unit in frozen]
        self.watch = BackwardWatch(model, units, self._after_backward, on_end=self._end_backward)
        self._modules = [model, *(m for m in layers if self._of(m))]  # the order of forward
        for module in self._modules:
            module.register_forward_pre_hook(self._before_call, with_kwargs=True)
            module.register_forward_hook(self._after_forward)
        model.register_state_dict_pre_hook(refuse_state_dict("fsdp_checkpoint.save_fsdp"))

    def make_units(self, layers: Sequence[nn.Module]) -> list[Unit]:
        """What travels together, the root last; a variant of FSDP cuts in another way."""
        return split_into_units(self.model, layers, self.sharding.world_size)

    def make_shard(self, unit: Unit) -> FlatShard:
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
        """The module is about to compute; those up to `prefetch` steps further come next."""
        place = self._modules.index(module)
        place = place or (len(self._modules) if step < 0 else 0)  # in backward the root is first
        ahead = range(place + step, place + step * (self.prefetch + 1), step)
        following = [self._modules[i] for i in ahead if 0 <= i < len(self._modules)]
        if step < 0:
            following = [each for each in following if each in self._to_differentiate]
        for shard in (one for each in (module, *following) for one in self._of(each)):
            shard.start_gather()
        for shard in self._of(module):
            shard.finish_gather()

    def _before_call(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._before_forward(module, (args, kwargs))

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        inputs = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.requires_grad]
        shards, in_backward = self._of(module), self.watch.in_backward
        if module is self.model and not in_backward:
            # Asked here, for inside of a checkpoint gradients are off, as in an evaluation.
            self._learns = torch.is_grad_enabled()
            self._to_differentiate.clear()
            self._start_over() if self.watch.is_incomplete else None
        if self._learns and not in_backward and (inputs or any(x.is_trainable for x in shards)):
            self._to_differentiate.add(module)
        self._enter(module, -1 if in_backward else 1)
        if frozen := [shard for shard in shards if not shard.is_trainable]:
            # No gradient of theirs tells that they are done with; the inputs' do.
            at_last_gradient(inputs, lambda: self._free(frozen))

    def _after_forward(self, module: nn.Module, args: Any, result: Any) -> None:
        if self.watch.in_backward:  # a checkpoint's second forward: backward comes at once
            return
        reached = [tensor for tensor in tensors_in(result) if tensor.requires_grad]
        number = self._calls.note(module) if reached else 0
        for tensor in reached:
            tensor.register_hook(lambda _: self._before_backward_of(module, number))
        stays = module is self.model or not self.reshard_after_forward
        if not stays or not (reached or module in self._to_differentiate):
            self._free(self._of(module))

    def _before_backward_of(self, module: nn.Module, number: int) -> None:
        """First the layers after it, on all ranks at the same time, whatever got no gradient."""
        if self._calls.reach(module, number):
            place = self._modules.index(module) or len(self._modules)  # the root comes first
            over = {each for each in self._modules[place + 1 :] if self._calls.all_reached(each)}
            self.watch.go_on(lambda index: self.shards[index].unit.module in over)
            self._enter(module, -1)

    def _free(self, shards: Sequence[FlatShard]) -> None:
        for shard in () if self._keeps_weights else shards:
            shard.free()

    def _after_backward(self, index: int) -> None:
        """All gradients of a unit are there, on this rank."""
        shard = self.shards[index]
        self._free([shard])
        if self._syncs:
            self._wait_for_reductions(but=1)
            self._reducing.append(shard.start_reduce())
        else:
            shard.keep_gradients()

    def _wait_for_reductions(self, but: int = 0) -> None:
        """Flattened gradients of at most `but` units may still be under way."""
        while len(self._reducing) > but:
            self._reducing.pop(0).wait()

    def _end_backward(self) -> None:
        self._wait_for_reductions()
        self._calls.forget()
        self._free([*self.shards, *self.frozen])

    def _start_over(self) -> None:
        """An error has ended a backward: what there is of its gradients is of no use."""
        self._wait_for_reductions()
        self._calls.forget()
        for shard in (*self.shards, *self.frozen):
            shard.free()
            shard.drop_gradients()
        self.watch.is_incomplete = False
