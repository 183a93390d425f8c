"""What lab 06's all-reduce is judged by: lists of tensors on real ranks, values, ledger and memory.

How it works: all values are whole numbers and the ranks a power of two, so sums and means are exact
in any order, and equality is asked. Suffixes: P values of all tensors of a list together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.checks.helpers import require
from utils.memory import MemoryMeter
from utils.ranks.ledger import TrafficLedger


@dataclass(frozen=True)
class Case:
    """A list of tensors by shape; the one at `transposed` does not lie in memory row by row."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype = torch.float32
    transposed: int | None = None

    def tensors(self, rank: int) -> list[Tensor]:
        """The list as this rank has it."""
        generator = torch.Generator().manual_seed(rank)
        made = []
        for place, shape in enumerate(self.shapes):
            is_turned = place == self.transposed
            kept = shape[::-1] if is_turned else shape
            tensor = torch.randint(1, 1000, kept, generator=generator).to(self.dtype)
            made.append(tensor.T if is_turned else tensor)
        return made

    def values_P(self, rank: int) -> Tensor:
        """All values behind each other."""
        return flat(self.tensors(rank))

    def sum_P(self, world_size: int) -> Tensor:
        """The sum over ranks."""
        return torch.stack([self.values_P(rank) for rank in range(world_size)]).sum(0)

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole list."""
        return sum(tensor.nbytes for tensor in self.tensors(0))


CASES = (
    Case("one tensor of 64 values", ((8, 8),)),
    Case("three tensors of 61 values in all", ((5, 10), (), (10,)), transposed=0),
    Case("3 values in fp64, and an empty tensor", ((2,), (0,), (1,)), torch.float64),
)


@dataclass(frozen=True)
class Run:
    """What one rank had and did in one case."""

    got_P: Tensor
    calls: dict[str, int]
    bytes_sent: int
    extra_bytes: int  # the most that lived beside the tensors


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of all values, one tensor after the other."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def hops_trial(rank: int, world_size: int, answer: Callable) -> list[Run]:
    """Run every case through the answer on this rank."""
    runs = []
    for case in CASES:
        given = case.tensors(rank)
        tensors = list(given)
        with TrafficLedger() as ledger, MemoryMeter() as meter:
            meter.label("gradients", *given)
            answer(tensors, rank, world_size)
        likely = "write into the tensors (copy_), not into the list"
        same = len(tensors) == len(given) and all(map(_is, tensors, given))
        require(same, "The list holds other tensors afterwards", likely=likely)
        extra_bytes = meter.report().peak_bytes - case.num_bytes
        runs.append(Run(flat(given), ledger.calls, ledger.bytes_sent, extra_bytes))
    return runs


def _is(one: object, other: object) -> bool:
    return one is other
