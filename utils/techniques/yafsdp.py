"""YaFSDP: sharded training that allocates nothing in its loop.

How it works: as `utils.techniques.fsdp`, with these changes.

    weights     layer i computes in buffer i modulo 2; both are allocated once, as large as the
                largest layer. While a layer computes in one, the next is gathered into the other.
    gradients   likewise: two buffers, in which autograd adds up and from which messages leave.
    norms       the parameters of all norms are one unit: gathered once, reduced once a step.
    division    sums travel; one division by ranks and micro-batches follows at the end.
    the end     the last user of a weight buffer stays in it after forward: no gather for backward.

With `reshard_after_forward=False` (ZeRO-2) each layer has a weight buffer of its own. The root has
its own buffers too, since its parameters are used at both ends of the model.

Left out: gradients of several micro-batches kept whole; a second shard inside a machine; a guard
for 16-bit sums, which could overflow since division comes last. A checkpoint of several layers
gathers some of them again.
Source: the 2024 release of YaFSDP (Yandex, Apache-2.0), its README and its authors' description.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from utils.techniques.buffered_shard import Buffer, BufferedShard
from utils.techniques.flat import FlatLayout, Unit, split_into_units
from utils.techniques.flat_shard import FlatShard
from utils.techniques.fsdp import FullySharded
from utils.techniques.lane import Lane
from utils.techniques.sharding import Sharding
from utils.techniques.watch import tensors_in

NORMS: tuple[type[nn.Module], ...] = (nn.LayerNorm, nn.RMSNorm)


class YaFSDP(FullySharded):
    """Shards `model` in place; `num_buffers` weight buffers allow gathers one fewer ahead.

    `num_micro_batches` backward passes make a step: after the last of them `parameters()` have the
    mean over ranks and micro-batches as gradients, so losses are not to be divided. Raises
    ValueError for fewer than two buffers or micro-batches below one.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], sharding: Sharding,
        lane: Lane | None = None, reshard_after_forward: bool = True, num_buffers: int = 2,
        num_micro_batches: int = 1,
    ) -> None:  # fmt: skip
        if num_buffers < 2 or num_micro_batches < 1:
            raise ValueError(
                f"{num_buffers} buffers and {num_micro_batches} micro-batches cannot work: take at "
                "least 2 buffers, one to compute in and one to fill, and 1 micro-batch."
            )
        self.num_buffers, self.num_micro_batches, self._num_done = num_buffers, num_micro_batches, 0
        prefetch = num_buffers - 1
        super().__init__(model, layers, sharding, lane, reshard_after_forward, prefetch)

    def make_units(self, layers: Sequence[nn.Module]) -> list[Unit]:
        """Layers and root without their norms, the norms as one unit, and the buffers for all."""
        units = split_into_units(self.model, layers, self.sharding.world_size)
        in_layers = {each for layer in layers for each in layer.parameters()}
        norms = {each for each in _norm_parameters(self.model) if each in in_layers}
        units = [kept for unit in units if (kept := _without(unit, norms)).parameters]
        names = {each: name for name, each in self.model.named_parameters()}
        mine = [each for each in self.model.parameters() if each in norms and each.requires_grad]
        if mine:
            units.append(_unit("norms", self.model, mine, names, self.sharding.world_size))
        self._make_buffers(units)
        return units

    def make_shard(self, unit: Unit) -> FlatShard:
        """A unit's shard, with the buffers that are its turn; frozen units stay as in FSDP."""
        if unit not in self._buffers:
            return super().make_shard(unit)
        return BufferedShard(unit, self.sharding, self.lane, *self._buffers[unit])

    @contextmanager
    def no_sync(self, keep_weights: bool = False) -> Iterator[None]:
        """Refused: two buffers cannot keep the gradients of all layers."""
        raise RuntimeError(
            "YaFSDP keeps no whole gradients: leave no_sync() out and pass num_micro_batches, "
            "which adds up the shards."
        )
        yield

    def _make_buffers(self, units: list[Unit]) -> None:
        layers = [unit for unit in units if unit.module is not self.model]
        largest = max((unit.layout.padded_values for unit in layers), default=0)
        device = units[0].parameters[0].device
        compute, reduce = self.sharding.compute_dtype, self.sharding.reduce_dtype
        num_weights = self.num_buffers if self.reshard_after_forward else len(layers)
        weights = [Buffer(largest, compute, device) for _ in range(min(num_weights, len(layers)))]
        gradients = [Buffer(largest, reduce, device) for _ in range(min(2, len(layers)))]
        self._buffers: dict[Unit, tuple[Buffer, Buffer]] = {}
        for index, unit in enumerate(layers):
            pair = weights[index % len(weights)], gradients[index % len(gradients)]
            self._buffers[unit] = pair
        for unit in units:
            if unit.module is self.model:
                size = unit.layout.padded_values
                self._buffers[unit] = Buffer(size, compute, device), Buffer(size, reduce, device)

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        prefetch = self.prefetch
        if self.watch.in_backward:  # a checkpoint's second forward may need any buffer
            self.prefetch = 0
            for shard in self._buffered(module):
                shard.weights.is_busy = False
        elif module is self.model:
            for shard in self.shards:
                shard.forget()
        super()._before_forward(module, args)
        self.prefetch = prefetch

    def _after_forward(self, module: nn.Module, args: Any, result: Any) -> None:
        in_backward = self.watch.in_backward
        reached = [tensor for tensor in tensors_in(result) if tensor.requires_grad]
        number = self._calls.note(module) if reached and not in_backward else 0
        for tensor in reached:
            tensor.register_hook(lambda _: self._before_backward_of(module, number))
        for shard in self._of(module):
            # A frozen unit has memory of its own; the backward around a second forward needs it.
            if isinstance(shard, BufferedShard) or not in_backward:
                shard.free()

    def _before_backward_of(self, module: nn.Module, number: int) -> None:
        """`number` is 0 for a checkpoint's second forward, whose buffer another unit may have."""
        if number:
            super()._before_backward_of(module, number)
        else:
            self._enter(module, -1)
        for shard in self._buffered(module):
            shard.take_gradients()

    def _buffered(self, module: nn.Module) -> list[BufferedShard]:
        return [shard for shard in self._of(module) if isinstance(shard, BufferedShard)]

    @torch.no_grad()
    def _end_backward(self) -> None:
        super()._end_backward()
        for shard in self.shards:
            shard.forget()
        self._num_done += 1
        if self._num_done % self.num_micro_batches == 0:
            divisor = self.sharding.world_size * self.sharding.num_replicas * self.num_micro_batches
            for shard in self.parameters():
                shard.grad /= divisor

    def _start_over(self) -> None:
        super()._start_over()
        for shard in self.shards:
            shard.forget()
        self._num_done = 0


def _norm_parameters(model: nn.Module) -> set[nn.Parameter]:
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    return {each for norm in norms for each in norm.parameters(recurse=False)}


def _without(unit: Unit, taken: set[nn.Parameter]) -> Unit:
    """The unit without these parameters."""
    names = dict(zip(unit.parameters, unit.layout.names, strict=True))
    kept = [each for each in unit.parameters if each not in taken]
    return _unit(unit.name, unit.module, kept, names, unit.layout.world_size)


def _unit(
    name: str, module: nn.Module, kept: list[nn.Parameter], names: dict[nn.Parameter, str],
    world_size: int,
) -> Unit:  # fmt: skip
    shapes = tuple(tuple(each.shape) for each in kept)
    layout = FlatLayout(tuple(names[each] for each in kept), shapes, world_size)
    return Unit(name, module, tuple(kept), layout)
