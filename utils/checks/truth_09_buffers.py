"""What lab 09's buffers are judged by: YaFSDP with a learner's plan, on real ranks.

How it works: `PlannedYaFSDP` takes its units and its buffers from a plan instead of making one size
for all. A trial takes two steps: collectives from the ledger, bytes from the meter, weights at the
end. `Case.expected` and `one_process` say what they must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utils.checks.truth_09_uneven import Uneven, loss_of
from utils.memory import MemoryMeter
from utils.ranks.ledger import TrafficLedger
from utils.techniques.buffered_shard import Buffer
from utils.techniques.flat import FlatLayout, Unit
from utils.techniques.sharding import Sharding
from utils.techniques.yafsdp import YaFSDP

NUM_STEPS, LEARNING_RATE = 2, 0.1


class Plan(NamedTuple):
    """Names that travel together, the buffer of each such unit (or None), values of each buffer."""

    units: list[list[str]]
    places: list[int | None]
    sizes: list[int]


@dataclass(frozen=True)
class Case:
    """Hidden widths of the layers, the number of ranks, and of buffers of each kind."""

    name: str
    widths: tuple[int, ...]
    num_ranks: int
    num_buffers: int = 2
    has_norms: bool = True

    def model(self) -> Uneven:
        """The same on all ranks."""
        return Uneven(self.widths, self.has_norms)

    @property
    def layers(self) -> list[dict[str, int]]:
        """Values of each parameter of each layer."""
        blocks = self.model().blocks
        return [{f"blocks.{k}.{name}": each.numel() for name, each in block.named_parameters()}
                for k, block in enumerate(blocks)]  # fmt: skip

    @property
    def expected(self) -> tuple[int, int, int]:
        """(gathers, reductions) of a step and bytes held between two steps, with the right plan.

        fp32 shards and their gradients; two buffers of each size; two more for norms and root.
        """
        plan, num_layers = self.plan, len(self.layers)
        values = {name: each.numel() for name, each in self.model().named_parameters()}
        inside = {name for unit in plan.units for name in unit}
        root = [name for name in values if name not in inside]
        whole = [padded(sum(values[name] for name in unit), self.num_ranks)
                 for unit in (*plan.units, root)]  # fmt: skip
        own = [size for size, place in zip(whole, (*plan.places, None), strict=True)
               if place is None]  # fmt: skip
        held = sum(whole) // self.num_ranks + sum(own) + sum(plan.sizes)
        return len(whole) + max(0, num_layers - len(plan.sizes)), len(whole), 8 * held

    @property
    def plan(self) -> Plan:
        """The right one."""
        values = {name: size for layer in self.layers for name, size in layer.items()}
        units = [[name for name in layer if "norm" not in name] for layer in self.layers]
        whole = [padded(sum(values[name] for name in unit), self.num_ranks) for unit in units]
        count = min(self.num_buffers, len(units))
        places: list[int | None] = [place % count for place in range(len(units))]
        norms = [name for name in values if "norm" in name]
        extra = [norms] if norms else []
        return Plan([*units, *extra], [*places, *([None] * len(extra))],
                    [max(whole[place::count]) for place in range(count)])  # fmt: skip


CASES = (
    Case("5 layers of unequal width", (13, 3, 24, 4, 6), 2),
    Case("7 layers in three buffers", (8, 21, 5, 3, 10, 12, 14), 2, num_buffers=3),
    Case("no norms", (9, 4, 7), 2, has_norms=False),
    Case("fewer layers than buffers", (6, 11), 2, num_buffers=3),
    Case("4 layers on three ranks", (10, 3, 4, 7), 3),
)


def padded(num_values: int, num_ranks: int) -> int:
    """Rounded up to a multiple of the ranks."""
    return -(-num_values // num_ranks) * num_ranks


def one_process(case: Case) -> list[Tensor]:
    """All weights after the steps, with the data of all ranks."""
    model = case.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for step in range(NUM_STEPS):
        losses = [loss_of(model, step, rank) for rank in range(case.num_ranks)]
        torch.stack(losses).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [each.detach() for each in model.parameters()]


class PlannedYaFSDP(YaFSDP):
    """YaFSDP whose units and buffers are a plan's; one buffer of each kind for each size."""

    def __init__(self, model: Uneven, sharding: Sharding, plan: Plan, num_buffers: int) -> None:
        self.plan = plan
        super().__init__(model, model.blocks, sharding, num_buffers=num_buffers)

    def make_units(self, layers: Sequence[nn.Module]) -> list[Unit]:
        """Units of one layer each, in order; then what belongs to several layers; the root."""
        parameters, found = dict(self.model.named_parameters()), []
        for names, place in zip(self.plan.units, self.plan.places, strict=True):
            numbers = {int(name.split(".")[1]) for name in names}
            module = layers[numbers.pop()] if len(numbers) == 1 else self.model
            found.append((self._unit(names, module, parameters), place))
        taken = {name for names in self.plan.units for name in names}
        rest = [name for name in parameters if name not in taken]
        found.append((self._unit(rest, self.model, parameters), None))
        modules = [*layers, self.model]
        found.sort(key=lambda each: modules.index(each[0].module))
        self._make_planned_buffers(found)
        return [unit for unit, _ in found]

    def _unit(self, names: list[str], module: nn.Module, parameters: dict) -> Unit:
        mine = tuple(parameters[name] for name in names)
        shapes = tuple(tuple(each.shape) for each in mine)
        layout = FlatLayout(tuple(names), shapes, self.sharding.world_size)
        return Unit(names[0], module, mine, layout)

    def _make_planned_buffers(self, found: list[tuple[Unit, int | None]]) -> None:
        def pair(size: int) -> tuple[Buffer, Buffer]:
            return Buffer(size, torch.float32, "cpu"), Buffer(size, torch.float32, "cpu")

        self._shared = [pair(size) for size in self.plan.sizes]  # also those that nobody uses
        self._buffers = {
            unit: pair(unit.layout.padded_values) if place is None else self._shared[place]
            for unit, place in found
        }


class Run(NamedTuple):
    """What a rank saw of one plan."""

    weights: list[Tensor]
    num_gathers: int  # in the second step
    num_reductions: int
    held_bytes: int  # between two steps


def buffers_trial(
    rank: int, world_size: int, plans: list[Plan], cases: list[Case]
) -> list[Run]:
    """Each case by its plan."""
    return [run_plan(case, Plan(*plan), rank) for case, plan in zip(cases, plans, strict=True)]


def run_plan(case: Case, plan: Plan, rank: int) -> Run:
    """Train, and look at the second step."""
    with MemoryMeter() as meter:
        model = case.model()
        sharding = Sharding(rank, case.num_ranks)
        sharded = PlannedYaFSDP(model, sharding, plan, max(2, case.num_buffers))
        optimizer = torch.optim.SGD(sharded.parameters(), lr=LEARNING_RATE)
        for step in range(NUM_STEPS):
            meter.mark(f"step {step}")
            with TrafficLedger() as ledger:
                loss_of(model, step, rank).backward()
            optimizer.step()
            optimizer.zero_grad()
        held_bytes = sum(meter.report().at_mark("step 1").values())
    reductions = ledger.calls["send"] // (case.num_ranks - 1)
    return Run(sharded.whole_parameters(), ledger.calls["all_gather"], reductions, held_bytes)
