"""What lab 07's clipping is judged by: shards with their padding, on ranks, and the norm in fp64.

How it works: a case says how all gradients of one process look; every rank gets its shards of them,
filled up with garbage. Suffixes: P values with padding, S values of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from utils.ranks.ledger import TrafficLedger

NUM_RANKS = 3


@dataclass(frozen=True)
class Case:
    """Gradients of `sizes` in shards, and of `whole` on every rank.

    `max_norm_share` is in units of the norm of the mean over micro-batches, or of 1 if that is 0.
    """

    name: str
    sizes: tuple[int, ...]
    whole: tuple[int, ...]
    max_norm_share: float
    num_micro: int = 1
    garbage: float = 3.0
    scale: float = 1.0
    dtype: torch.dtype = torch.float32

    @cached_property
    def sums(self) -> list[Tensor]:
        """The true values of all gradients, shards' first: sums over micro-batches, fp64."""
        generator = torch.Generator().manual_seed(sum(self.sizes))
        drawn = [torch.randn(n, generator=generator) for n in (*self.sizes, *self.whole)]
        return [(self.scale * each).to(self.dtype).double() for each in drawn]

    @property
    def norm(self) -> float:
        """The global norm of the mean over micro-batches."""
        return torch.cat(self.sums).norm().item() / self.num_micro

    @property
    def max_norm(self) -> float:
        """What to clip to."""
        return self.max_norm_share * (self.norm or 1.0)

    @property
    def factor(self) -> float:
        """What every value of the mean is multiplied by."""
        return min(1.0, self.max_norm / self.norm) if self.norm else 1.0

    def num_mine(self, place: int, rank: int) -> int:
        """How many values of a rank's shard are no padding."""
        shard = -(-self.sizes[place] // NUM_RANKS)
        return max(0, min(shard, self.sizes[place] - rank * shard))

    def shards(self, rank: int) -> list[Tensor]:
        """What a rank has of the first len(sizes) gradients, with garbage behind."""
        found = []
        for sum_P in self.sums[: len(self.sizes)]:
            padding = torch.full((-len(sum_P) % NUM_RANKS,), self.garbage).double()
            found.append(torch.cat([sum_P, padding]).chunk(NUM_RANKS)[rank].to(self.dtype))
        return found

    def whole_gradients(self) -> list[Tensor]:
        """What every rank has."""
        return [each.to(self.dtype) for each in self.sums[len(self.sizes) :]]


NAN = float("nan")
CASES = (
    Case("a gradient to be clipped", (10, 7), (4,), 0.4, num_micro=2),
    Case("nothing to clip in the mean of four micro-batches", (12, 6), (5, 3), 1.5, 4, NAN),
    Case("units smaller than the ranks, NaN in the padding", (1, 5, 2), (), 0.25, 1, NAN),
    Case("large values in fp16", (400, 11), (9,), 0.01, 2, 7.0, 300.0, torch.float16),
    Case("gradients of zero", (10, 4), (2,), 0.5, 2, 3.0, 0.0),
)


@dataclass(frozen=True)
class Run:
    """What one rank had after one case, its padding cut off."""

    returned: object
    shards: list[Tensor]
    whole: list[Tensor]
    calls: dict[str, int]
    bytes_sent: int


def clip_trial(rank: int, world_size: int, answer: Callable) -> list[Run]:
    """Run every case through the answer on this rank."""
    runs = []
    for case in CASES:
        given, whole = case.shards(rank), case.whole_gradients()
        with TrafficLedger() as ledger:
            sizes = list(case.sizes)
            returned = answer(
                list(given), sizes, list(whole), rank, case.num_micro, case.max_norm
            )
        mine = [each[: case.num_mine(k, rank)] for k, each in enumerate(given)]
        runs.append(Run(returned, mine, whole, ledger.calls, ledger.bytes_sent))
    return runs


def norm_mistakes(case: Case, rank: int) -> list[tuple[str, float]]:
    """(mistake, the norm that this rank would return)."""
    sums = [each / case.num_micro for each in case.sums]
    in_shards, whole = sums[: len(case.sizes)], sums[len(case.sizes) :]
    squares = [_square_of_rank(case, r) / case.num_micro**2 for r in range(NUM_RANKS)]
    shared = sum(each.square().sum().item() for each in whole)
    everything = sum(squares) + shared
    padding = _padding_square(case) / case.num_micro**2
    of_tensors = sum(each.norm().item() for each in (*in_shards, *whole))
    of_ranks = sum((s + shared) ** 0.5 for s in squares)
    small = 1.0 if case.norm == 0 else case.norm
    local = "the norm of the local shard only: the squares of all ranks belong together"
    summed = "a sum of norms: add up the squares, and take one root at the end"
    counted = "what every rank has whole is counted by each of them: it counts once"
    return [
        (local, squares[rank] ** 0.5),
        (local, (squares[rank] + shared) ** 0.5),
        (summed, of_tensors),
        (summed, of_ranks),
        (summed, sum(square**0.5 for square in squares)),
        (summed, sum(square**0.5 for square in squares) + shared**0.5),
        (summed, (squares[0] + shared) ** 0.5 + sum(square**0.5 for square in squares[1:])),
        ("the root is missing: this is the sum of squares", everything),
        (counted, (sum(squares) + NUM_RANKS * shared) ** 0.5),
        ("what every rank has whole is left out", sum(squares) ** 0.5),
        ("the padding is counted: only sizes[k] values are real, the last ranks have fewer",
         (everything + padding) ** 0.5),
        ("the padding is counted, and what every rank has whole is counted by each of them",
         (sum(squares) + padding + NUM_RANKS * shared) ** 0.5),
        ("clipped before averaging: the mean over micro-batches has the norm that counts",
         case.num_micro * case.norm),
        ("divided by num_micro twice", case.norm / case.num_micro),
        ("the ranks' squares are averaged: they add up", (everything / NUM_RANKS) ** 0.5),
        ("the ranks' squares are averaged: they add up",
         ((sum(squares) + NUM_RANKS * shared) / NUM_RANKS) ** 0.5),
        ("return the norm before clipping", min(small, case.max_norm)),
        ("the largest norm of a rank: the squares of all ranks belong together",
         (max(squares) + shared) ** 0.5),
    ]  # fmt: skip


def value_mistakes(case: Case) -> list[tuple[str, float]]:
    """(mistake, what each sum over micro-batches would be multiplied by)."""
    factor, num_micro = case.factor, case.num_micro
    always = case.max_norm / case.norm if case.norm else 1.0
    before = min(1.0, case.max_norm / (num_micro * case.norm)) if case.norm else 1.0
    return [
        ("scaled although the norm is below max_norm: only scale down", always / num_micro),
        ("not scaled down", 1 / num_micro),
        ("scaled in place, or not at all: gradient *= factor, not gradient = gradient * factor",
         1.0),
        ("clipped before averaging, or divided by num_micro twice: the norm of the mean counts",
         before / num_micro),
        ("the sum over micro-batches, clipped: the mean is asked", factor),
        ("the sum over micro-batches, clipped: the mean is asked", before),
        ("scaled twice", factor**2 / num_micro),
        ("divided by the number of ranks: they hold means over ranks", factor / num_micro / 3),
        ("all-zero gradients agree on every rank, too", 0.0),
    ]


def _square_of_rank(case: Case, rank: int) -> float:
    parts = [each.double()[: case.num_mine(k, rank)] for k, each in enumerate(case.shards(rank))]
    return sum(part.square().sum().item() for part in parts)


def _padding_square(case: Case) -> float:
    return sum(-size % NUM_RANKS for size in case.sizes) * case.garbage**2
