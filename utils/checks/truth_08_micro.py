"""What lab 08's micro-batches are judged by: units in bf16, their messages, and one process.

How it works: the loss of a micro-batch is c w + w^2 / 2, so its gradient, c + w, shows with which
weights it was computed. All numbers are such that fp32 sums are exact; the first micro-batch's c
is so large that bf16 sums lose the others. Suffix P: all values of the model in one flat tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from utils.memory import MemoryMeter
from utils.techniques.flat import Unit, split_into_units
from utils.techniques.flat_shard import FlatShard
from utils.techniques.lane import InlineLane
from utils.techniques.ring import ring_reduce_scatter
from utils.techniques.sharding import Sharding

SHAPES = (((6, 5), (7,)), ((9,), (4, 4)), ((3, 3),))  # of each unit's parameters
NUM_VALUES = sum(torch.Size(shape).numel() for unit in SHAPES for shape in unit)
NUM_MICRO, NUM_STEPS, LEARNING_RATE = 8, 2, 2.0**-6
BEFORE, LAST = "before step {}", "the last micro-batch of step {} begins"


class MicroUnit:
    """A unit on one rank: `parameters` in bf16, `gather()`, `free()`, `reduce(gradients)`."""

    def __init__(self, unit: Unit, rank: int, world_size: int) -> None:
        sharding = Sharding(rank, world_size, compute_dtype=torch.bfloat16)
        self.parameters = list(unit.parameters)
        self.rank, self.world_size, self.layout = rank, world_size, unit.layout
        self._shard = FlatShard(unit, sharding, InlineLane())
        self.num_gathers = self.num_reductions = 0

    @property
    def shard_S(self) -> nn.Parameter:
        """This rank's fp32 values."""
        return self._shard.shard_S

    @property
    def is_whole(self) -> bool:
        """Whether the parameters have their values."""
        return self._shard.is_whole

    def gather(self) -> None:
        """Give the parameters their values, in bf16; does nothing if they have values already."""
        if not self.is_whole:
            self.num_gathers += 1
            self._shard.start_gather()
            self._shard.finish_gather()

    def free(self) -> None:
        """Give the memory of the parameters' values back."""
        self._shard.free()

    @torch.no_grad()
    def reduce(self, gradients: Sequence[Tensor]) -> None:
        """Average whole gradients over ranks, and add this rank's part to its shard's gradient.

        One tensor for each parameter, in their order; sent in fp32.
        """
        self.num_reductions += 1
        flat_P = self.layout.flatten(list(gradients), torch.float32).div_(self.world_size)
        mean_S = torch.empty_like(self.shard_S)
        ring_reduce_scatter(mean_S, flat_P, self.rank, self.world_size)
        self.shard_S.grad = mean_S if self.shard_S.grad is None else self.shard_S.grad + mean_S


class _Loss(torch.autograd.Function):
    """(c w + w^2 / 2) summed; nothing is saved, so weights that were freed are read as NaN."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, c: Tensor, parameter: list[Tensor]) -> Tensor:
        ctx.c, ctx.parameter = c, parameter
        return (c * weight + weight * weight / 2).float().sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        whole = (ctx.c + ctx.parameter[0].detach()).bfloat16()
        return whole * gradient.bfloat16(), None, None


def coefficients_P(step: int, micro: int, rank: int) -> Tensor:
    """c of one micro-batch, small whole numbers; in the first one 256 times as large."""
    generator = torch.Generator().manual_seed(1000 * step + 100 * micro + rank)
    c_P = torch.randint(1, 4, (NUM_VALUES,), generator=generator)
    return (c_P * (256 if micro == 0 else 1)).bfloat16()


def build_model() -> nn.Module:
    """Units as lists of parameters, multiples of 1/4."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda shape: torch.randint(-4, 5, shape, generator=generator) / 4  # noqa: E731
    units = [nn.ParameterList(nn.Parameter(draw(s)) for s in shapes) for shapes in SHAPES]
    return nn.ModuleList(units)


def micro_loss(units: Sequence[MicroUnit], c_P: Tensor, before: Callable[[], None]) -> Tensor:
    """The loss of one micro-batch, with the weights that the units have now."""
    before()
    parameters = [each for unit in units for each in unit.parameters]
    parts = c_P.split([each.numel() for each in parameters])
    pairs = zip(parameters, parts, strict=True)
    return sum(_Loss.apply(p, c.view(p.shape), [p]) for p, c in pairs)


@dataclass(frozen=True)
class StepRun:
    """One step on one rank. `gradients`: of each shard, as the optimizer saw them; None without."""

    gradients: list[Tensor | None]
    num_updates: int
    num_gathers: int  # of all units
    num_reductions: int
    num_whole: int  # units, when the optimizer begins
    num_left: int  # gradients that are left after the step, of parameters and shards
    extra_bytes: int  # when the last micro-batch begins, beside weights and shards


def micro_trial(rank: int, world_size: int, answer: Callable) -> list[StepRun]:
    """Two steps of eight micro-batches."""
    model = build_model()
    cut = split_into_units(model, list(model), world_size)
    with MemoryMeter() as meter:
        units = [MicroUnit(unit, rank, world_size) for unit in cut]
        optimizer = torch.optim.SGD([unit.shard_S for unit in units], lr=LEARNING_RATE)
        steps = range(NUM_STEPS)
        return [_step(units, optimizer, answer, step, rank, meter) for step in steps]


def _step(
    units: list[MicroUnit], optimizer: torch.optim.Optimizer, answer: Callable,
    step: int, rank: int, meter: MemoryMeter,
) -> StepRun:  # fmt: skip
    seen: list[tuple[list, int]] = []

    def look(*_: Any) -> None:
        gradients = [u.shard_S.grad if u.shard_S.grad is None else u.shard_S.grad.clone()
                     for u in units]  # fmt: skip
        seen.append((gradients, sum(unit.is_whole for unit in units)))

    marks = [lambda: None] * (NUM_MICRO - 1) + [lambda: meter.mark(LAST.format(step))]
    losses = [partial(micro_loss, units, coefficients_P(step, micro, rank), mark)
              for micro, mark in enumerate(marks)]  # fmt: skip
    counts = sum(u.num_gathers for u in units), sum(u.num_reductions for u in units)
    hook = optimizer.register_step_pre_hook(look)
    meter.mark(BEFORE.format(step))
    answer(list(units), losses, optimizer)
    hook.remove()
    parameters = [each for unit in units for each in (unit.shard_S, *unit.parameters)]
    gradients, num_whole = seen[-1] if seen else ([None] * len(units), 0)
    return StepRun(
        gradients,
        len(seen),
        sum(u.num_gathers for u in units) - counts[0],
        sum(u.num_reductions for u in units) - counts[1],
        num_whole,
        sum(each.grad is not None and bool(each.grad.any()) for each in parameters),
        _bytes_at(meter, LAST.format(step)) - _bytes_at(meter, BEFORE.format(step)),
    )


def _bytes_at(meter: MemoryMeter, mark: str) -> int:
    report = meter.report()
    known = any(name == mark for name, _ in report.marks)
    return sum(report.at_mark(mark).values()) if known else 0
