"""ZeRO in three stages: optimizer state, then gradients, then weights live on one rank each.

How it works: the model is cut into units (each layer, and the rest), each unit into N shards.

    ZeroOne     a rank updates its shards only, so it needs only their optimizer state. A step
                reduce-scatters the gradients, updates, and all-gathers the weights.
    ZeroTwo     a unit's gradients are reduce-scattered during backward, as soon as they are
                complete, and freed: only the shard of their mean is kept.
    ZeroThree   a unit's weights are gathered for its forward, freed, gathered again for its
                backward, freed again: only the shard is kept. Nothing is left to gather in a step.

Bytes per parameter with bf16 weights and Adam: 4 + 12/N, 2 + 14/N, 16/N (plain data parallelism:
16); with fp32 weights 8 + 8/N, 4 + 12/N, 16/N. Each rank sends (N - 1)/N times the weights' bytes
2, 2, 3 times a step; with M micro-batches 2, M + 1, 3 M times, for gradients and weights that
are not kept cannot wait.

Left out: overlap of messages with compute (`utils.techniques.fsdp`), different settings for
different parameters in one optimizer, layers that only some ranks run. A parameter that a step does
not use counts as one with a gradient of zeros.
Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models"
(arXiv 1910.02054).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.techniques.clipping import clip_by_global_norm, require_positive
from utils.techniques.data_parallel import broadcast_model
from utils.techniques.flat import split_into_units
from utils.techniques.hooks import Calls, refuse_state_dict
from utils.techniques.sharded_unit import ShardedUnit, check_place, round_the_rest
from utils.techniques.watch import BackwardWatch, tensors_in

Group = dist.ProcessGroup | None
MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class ZeroOne:
    """Stage 1. Train `model` as if alone on this rank's sequences, then call `step()`.

    `layers` are the model's repeated layers; the optimizer is made from this rank's fp32 masters.
    Frozen parameters stay whole on every rank. Raises ValueError for a dtype that weights cannot
    have, a rank or world size that is not the group's, or a model without anything to train.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[nn.Module],
        make_optimizer: MakeOptimizer,
        rank: int,
        world_size: int,
        group: Group = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {DTYPES}, not {dtype}.")
        check_place(rank, world_size, group)
        broadcast_model(model, group)
        round_the_rest(model, dtype)
        self.model, self.group = model, group
        units = split_into_units(model, layers, world_size)
        if not units:
            raise ValueError("The model has no parameter that requires a gradient: nothing to do.")
        self.units = [ShardedUnit(unit, rank, world_size, group, dtype) for unit in units]
        self.optimizer = make_optimizer([unit.master_S for unit in self.units])

    def step(self, max_norm: float | None = None) -> Tensor | None:
        """Update the weights on all ranks. Returns the gradients' norm if `max_norm` is given.

        Raises ValueError, before anything has changed, unless `max_norm` is positive; in stages 2
        and 3 RuntimeError if an error has ended a backward since the last update.
        """
        if max_norm is not None:
            require_positive(max_norm)
        self._scatter_gradients()
        for unit in self.units:
            unit.collect_gradient()
        norm = self._clip(max_norm)
        self.optimizer.step()
        for unit in self.units:
            unit.round_master()
        self.gather_weights()
        return norm

    def zero_grad(self) -> None:
        """Forget the gradients since the last update, as after a backward with an error."""
        for unit in self.units:
            unit.drop_gradients()

    def whole_parameters(self) -> list[Tensor]:
        """The fp32 values of all parameters, in the model's order, on every rank."""
        whole: dict[nn.Parameter, Tensor] = {}
        for unit in self.units:
            whole.update(unit.whole_masters())
        return [
            whole[each] if each in whole else each.detach().float()  # frozen
            for each in self.model.parameters()
        ]

    def _scatter_gradients(self) -> None:
        for unit in self.units:
            unit.scatter_gradients()

    def gather_weights(self) -> None:
        """Give every rank the weights that follow from all ranks' masters."""
        for unit in self.units:
            unit.gather()

    def _clip(self, max_norm: float | None) -> Tensor | None:
        if max_norm is None:
            return None
        shards = [unit.master_S.grad for unit in self.units if unit.master_S.grad is not None]
        return clip_by_global_norm(shards, max_norm, self.group)


class ZeroTwo(ZeroOne):
    """Stage 2: gradients leave during backward, and a rank keeps its shards of them."""

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        units = [unit.unit for unit in self.units]
        self.watch = BackwardWatch(model, units, self._on_ready, on_end=self._on_end)

    def zero_grad(self) -> None:
        """Forget the gradients since the last update, as after a backward with an error."""
        super().zero_grad()
        self.watch.in_backward = self.watch.is_incomplete = False
        self._on_end()

    def _on_ready(self, index: int) -> None:
        self.units[index].scatter_gradients()

    def _on_end(self) -> None:
        """Backward is over."""

    def _scatter_gradients(self) -> None:
        """Done already, during backward."""
        if self.watch.in_backward or self.watch.is_incomplete:
            raise RuntimeError(
                "An error has ended a backward, so its gradients are not complete: call "
                "zero_grad() and run the step again from its first micro-batch."
            )


class ZeroThree(ZeroTwo):
    """Stage 3: weights exist only while their layer computes."""

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        model.register_state_dict_pre_hook(refuse_state_dict("zero_checkpoint.save_shards"))
        self._calls = Calls()
        for place, unit in enumerate(self.units):
            unit.free()
            self._follow(place, unit)

    def _follow(self, place: int, unit: ShardedUnit) -> None:
        """Gather before the module computes, forward and backward; free afterwards."""

        def gather(*_: Any) -> None:
            if not unit.is_whole:  # a checkpoint's second forward and backward share one gather
                unit.gather()

        def before_backward(number: int) -> None:
            if self._calls.reach(unit.unit.module, number):
                # The layers after it go first, on all ranks, whatever got no gradient on some.
                over = [self._calls.all_reached(each.unit.module) for each in self.units]
                self.watch.go_on(lambda index: index > place and over[index])
            gather()

        def after_forward(module: nn.Module, args: Any, result: Any) -> None:
            if self.watch.in_backward:
                return  # a checkpoint's second forward: backward comes at once
            unit.free()
            reached = [leaf for leaf in tensors_in(result) if leaf.requires_grad]
            number = self._calls.note(module) if reached else 0
            for leaf in reached:
                leaf.register_hook(lambda _: before_backward(number))

        unit.unit.module.register_forward_pre_hook(gather)
        unit.unit.module.register_forward_hook(after_forward)

    def _on_end(self) -> None:
        self._calls.forget()

    def _on_ready(self, index: int) -> None:
        super()._on_ready(index)
        self.units[index].free()

    def gather_weights(self) -> None:
        """Left to the next forward; what an error has left whole is out of date."""
        for unit in self.units:
            unit.free()
