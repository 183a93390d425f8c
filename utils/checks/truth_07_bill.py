"""What lab 07's bill is judged by: bytes held and sent under ZeRO, padding included.

How it works: `held_bytes` and `sent_bytes` are the formulas that the memory meter and the traffic
ledger confirm to the byte on real ranks, Adam's step counters aside (tests/test_lab_07_truths.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Case:
    """The arguments of one bill; `units[k]` are the sizes of the parameters of unit k."""

    units: tuple[tuple[int, ...], ...]
    stage: int
    world_size: int
    weight_bytes: int
    num_micro: int = 1

    def __str__(self) -> str:
        ranks = f"{self.world_size} rank{'s' * (self.world_size > 1)}"
        values = f"weights of {self.weight_bytes} bytes"
        micro = f", {self.num_micro} micro-batches" * (self.num_micro > 1)
        return f"For stage {self.stage} on {ranks}, {values}{micro}"

    @property
    def arguments(self) -> tuple:
        """As a learner's function gets them, in lists of its own."""
        units = [list(sizes) for sizes in self.units]
        return units, self.stage, self.world_size, self.weight_bytes, self.num_micro

    @property
    def num_values(self) -> int:
        """All parameters."""
        return sum(map(sum, self.units))

    @property
    def shard_values(self) -> int:
        """Values of all shards of one rank."""
        return sum(-(-sum(sizes) // self.world_size) for sizes in self.units)

    @property
    def padded_values(self) -> int:
        """Values of all flat tensors."""
        return self.world_size * self.shard_values

    def with_units(self, units: tuple[tuple[int, ...], ...]) -> Case:
        """The same with parameters that are cut into other units."""
        return replace(self, units=units)


def held_bytes(case: Case) -> int:
    """Weights, gradients and optimizer state of one rank when backward has ended."""
    weights = case.shard_values if case.stage == 3 else case.padded_values
    return case.weight_bytes * (weights + gradient_values(case)) + state_bytes(case)


def gradient_values(case: Case) -> int:
    """Whole in stage 1, where they are the parameters' own tensors; shards later."""
    return case.num_values if case.stage == 1 else case.shard_values


def state_bytes(case: Case) -> int:
    """Two moments, and a master beside 16-bit weights."""
    return (8 if case.weight_bytes == 4 else 12) * case.shard_values


def num_messages(case: Case) -> int:
    """How often the weights, or as many gradients, pass the ring in a step."""
    return {1: 2, 2: case.num_micro + 1, 3: 3 * case.num_micro}[case.stage]


def sent_bytes(case: Case) -> int:
    """Bytes that one rank sends in a step."""
    return num_messages(case) * message_bytes(case)


def message_bytes(case: Case) -> int:
    """N - 1 slices of every flat tensor."""
    return (case.world_size - 1) * case.shard_values * case.weight_bytes


EVEN = ((40, 8), (40, 8), (24,))
UNEVEN = ((7, 3, 1), (5,), (23, 11, 2, 1), (2,))
CASES = (
    *(Case(EVEN, stage, 4, 4) for stage in (1, 2, 3)),
    *(Case(UNEVEN, stage, 3, 4) for stage in (1, 2, 3)),
    *(Case(UNEVEN, stage, 4, 2) for stage in (1, 2, 3)),
    *(Case(UNEVEN, stage, 8, 2, 4) for stage in (1, 2, 3)),
    *(Case(EVEN, stage, 1, 2, 2) for stage in (1, 2, 3)),
)
