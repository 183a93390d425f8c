"""What lab 07's resharding is judged by: files of shards, who opens which, and the true new shards.

How it works: every value of a unit is a number of its own (its place, in each kind of state with
another offset), and the files' padding holds garbage, so a wrong shard tells where its values came
from. Suffixes: P values of a unit with padding, S values of one shard.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

GARBAGE = -7.0
OFFSETS = {"master": 1.0, "exp_avg": 1001.0, "exp_avg_sq": 2001.0}
STEP = 12.0
State = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Units of `sizes` values, saved by `old` ranks, read by `new` ones."""

    sizes: tuple[int, ...]
    old: int
    new: int

    def __str__(self) -> str:
        units = " and ".join(map(str, self.sizes))
        return f"From {self.old} to {self.new} ranks, units of {units} values"

    def needed(self, rank: int) -> set[int]:
        """The files that a new rank's shards overlap."""
        found = set()
        for size in self.sizes:
            old, new = shard_values(size, self.old), shard_values(size, self.new)
            mine = set(range(rank * new, min((rank + 1) * new, size)))
            found |= {place // old for place in mine}
        return found


CASES = (
    Case((9,), 4, 3),
    Case((10,), 4, 3),
    Case((12, 10), 4, 4),
    Case((10, 23), 3, 8),
    Case((25, 7, 16), 6, 4),
    Case((30, 11), 5, 1),
    Case((13, 40), 1, 3),
    Case((2, 40), 4, 6),
    Case((3,), 2, 5),
)


def shard_values(size: int, num_ranks: int) -> int:
    """S: an N-th, rounded up."""
    return -(-size // num_ranks)


def values_P(size: int, key: str, num_ranks: int, padding: float, unit: int = 0) -> Tensor:
    """All values of a unit for one kind of state, padded."""
    padded = torch.full((num_ranks * shard_values(size, num_ranks),), padding)
    padded[:size] = torch.arange(size) + OFFSETS[key] + 100 * unit
    return padded


def shard(case: Case, unit: int, key: str, num_ranks: int, rank: int, padding: float) -> Tensor:
    """One rank's shard of one kind of state of one unit, in memory of its own."""
    whole_P = values_P(case.sizes[unit], key, num_ranks, padding, unit)
    return whole_P.chunk(num_ranks)[rank].clone()


def file(case: Case, rank: int) -> list[State]:
    """What old rank `rank` has saved."""
    return [
        {
            "master": shard(case, unit, "master", case.old, rank, GARBAGE),
            "step": torch.tensor(STEP),
            **{
                key: shard(case, unit, key, case.old, rank, GARBAGE)
                for key in ("exp_avg", "exp_avg_sq")
            },
        }
        for unit in range(len(case.sizes))
    ]


@dataclass
class Files:
    """`open_file(rank)`, and a note of what was opened."""

    case: Case
    opened: list[int] = field(default_factory=list)
    handed_out: list[Tensor] = field(default_factory=list)

    def __call__(self, rank: int) -> list[State]:
        """Open the file of an old rank."""
        self.opened.append(rank)
        states = file(self.case, rank)
        self.handed_out += [v for each in states for v in each.values() if v.dim()]
        return states


def mistakes(case: Case, unit: int, key: str, rank: int) -> list[tuple[str, Tensor]]:
    """(mistake, the shard that it leads to)."""
    size, old, new = case.sizes[unit], case.old, case.new
    num_shard = shard_values(size, new)
    with_old_P, true_P = (values_P(size, key, *each, unit) for each in ((old, GARBAGE), (new, 0.0)))
    start, recut = rank * num_shard, shard_values(len(with_old_P), new)
    found = [
        *((CONCATENATED, _from(each, rank * recut, recut))
          for each in (with_old_P, values_P(size, key, old, 0.0, unit)) if recut != num_shard),
        ("padding copied into the new shard: what lies behind the unit's last value is 0",
         _from(with_old_P, start, num_shard)),
        ("padding copied into the middle: all old shards have S values, and padding lies at the "
         "end of the unit, not of each shard",
         _from(_as_if_even(with_old_P, size, old), start, num_shard)),
        (OFF_BY_ONE, _from(true_P, start + 1, num_shard)),
        (OFF_BY_ONE, _from(true_P, max(0, start - 1), num_shard)),
        *_partly(_from(true_P, start, num_shard)),
        ("nothing was copied into it", torch.zeros(num_shard)),
        ("the size is rounded down", _from(true_P, rank * (size // new), size // new)),
    ]  # fmt: skip
    others = [
        ("this is another rank's shard", true_P.chunk(new)[r]) for r in range(new) if r != rank
    ]
    kinds = [
        (f"this is {kind!r}: each kind of state has its own values",
         _from(values_P(size, kind, new, 0.0, unit), start, num_shard))
        for kind in OFFSETS if kind != key
    ]  # fmt: skip
    olds = [
        ("this is a whole old shard: cut what the new one overlaps",
         _from(with_old_P, r * shard_values(size, old), num_shard)) for r in range(old)
    ]  # fmt: skip
    return [*found, *others, *kinds, *olds]


CONCATENATED = (
    "the old shards are put together with their padding: the new size follows from the unit's "
    "values alone"
)
OFF_BY_ONE = "off by one at the border: a shard has the values from start up to, but without, end"


def _from(whole: Tensor, start: int, size: int) -> Tensor:
    """So many values from a place on; zeros where there are none."""
    found = torch.zeros(size)
    part = whole[start : start + size]
    found[: len(part)] = part
    return found


def _as_if_even(old_P: Tensor, size: int, old: int) -> Tensor:
    """What is read by someone who takes old shards to differ by at most one value."""
    counts = [len(each) for each in torch.arange(size).tensor_split(old)]
    return torch.cat([one[:n] for one, n in zip(old_P.chunk(old), counts, strict=True)])


def _partly(true_S: Tensor) -> list[tuple[str, Tensor]]:
    """The same without its last or its first value."""
    if len(true_S) < 2:
        return []
    without_last, without_first, real = true_S.clone(), true_S.clone(), int((true_S != 0).sum())
    without_last[max(0, real - 1)] = without_first[0] = 0
    return [(OFF_BY_ONE, without_last), (OFF_BY_ONE, without_first)]
