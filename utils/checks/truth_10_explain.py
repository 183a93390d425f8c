"""Made logs of jobs that were planned and paid, and the seven factors between their bills.

How it works: an `Attempt` is one start of a job: from a checkpoint on, so many steps, so fast, at a
price. `logs_of` writes each attempt's log as the trainer does: seconds and dollars "so far" contain
what was kept of earlier attempts, and what was lost stands in the log of whoever lost it. `Totals`
are the sums over all attempts, of which the factors are quotients that telescope.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from utils.trainer.log import TrainingLog

FACTORS = ("tokens", "repeated", "model", "recomputation", "seconds", "ranks", "price")


@dataclass(frozen=True)
class Attempt:
    """One start: goes on after step `first` and takes its last step, `last`."""

    last: int
    first: int = 0
    num_ranks: int = 2
    step_s: float = 0.5
    usd_per_hour: float = 2.0  # of one rank
    flops: int = 4 * 10**12  # useful ones, of a step
    again: int = 0
    tokens: int = 8192  # of a step


class Totals(NamedTuple):
    """Of a whole job."""

    kept_tokens: float
    tokens: float
    useful_flops: float
    done_flops: float
    seconds: float
    rank_seconds: float
    usd: float

    def quotients(self) -> tuple[float, ...]:
        """FACTORS of one job: their product is the dollars."""
        return (self.kept_tokens, *(b / a for a, b in itertools.pairwise(self)))


def totals_of(attempts: Sequence[Attempt]) -> Totals:
    """The sums, from the attempts themselves and not from their logs."""
    steps = [each.last - each.first for each in attempts]
    pairs = list(zip(attempts, steps, strict=True))
    return Totals(
        attempts[-1].tokens * attempts[-1].last,
        sum(each.tokens * n for each, n in pairs),
        sum(each.flops * n for each, n in pairs),
        sum((each.flops + each.again) * n for each, n in pairs),
        sum(each.step_s * n for each, n in pairs),
        sum(each.step_s * n * each.num_ranks for each, n in pairs),
        sum(each.step_s * n * each.num_ranks * each.usd_per_hour / 3600 for each, n in pairs),
    )


def factors_between(planned: Totals, paid: Totals) -> dict[str, float]:
    """By which each quotient has grown."""
    pairs = zip(planned.quotients(), paid.quotients(), strict=True)
    return {name: b / a for name, (a, b) in zip(FACTORS, pairs, strict=True)}


def logs_of(attempts: Sequence[Attempt]) -> list[TrainingLog]:
    """One log for each attempt, as it was when the attempt ended."""
    kept: list[dict[str, Any]] = []
    starts: list[dict[str, Any]] = []
    logs = []
    for number, each in enumerate(attempts):
        kept = [step for step in kept if step["step"] <= each.first]
        starts = [*starts, _start(each, number > 0)]
        kept = kept + _steps(each, kept[-1] if kept else {"seconds": 0.0, "usd": 0.0})
        is_last = number == len(attempts) - 1
        end = {"event": "end", "step": each.last} if is_last else None
        logs.append(TrainingLog(starts[-1], list(kept), [], [], end, [], list(starts)))
    return logs


def _start(attempt: Attempt, is_resumed: bool) -> dict[str, Any]:
    return {
        "event": "start", "recipe": {"num_ranks": attempt.num_ranks},
        "tokens_per_step": attempt.tokens, "flops_per_step": attempt.flops,
        "recomputed_flops_per_step": attempt.again, "usd_per_gpu_hour": attempt.usd_per_hour,
        "resumed_from": attempt.first if is_resumed else None,
    }  # fmt: skip


def _steps(attempt: Attempt, before: dict[str, Any]) -> list[dict[str, Any]]:
    usd_per_s = attempt.num_ranks * attempt.usd_per_hour / 3600
    return [
        {
            "event": "step", "step": step, "tokens": step * attempt.tokens,
            "seconds": before["seconds"] + (step - attempt.first) * attempt.step_s,
            "usd": before["usd"] + (step - attempt.first) * attempt.step_s * usd_per_s,
        }
        for step in range(attempt.first + 1, attempt.last + 1)
    ]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A plan's attempts and what came of it."""

    name: str
    planned: tuple[Attempt, ...]
    paid: tuple[Attempt, ...]

    @property
    def right(self) -> dict[str, float]:
        """The seven factors."""
        return factors_between(totals_of(self.planned), totals_of(self.paid))

    @property
    def whole(self) -> float:
        """Paid dollars over planned ones."""
        return math.prod(self.right.values())


_PLAN = (Attempt(40),)
STORY = Case(
    "a spot machine taken away twice", _PLAN,
    (Attempt(18, usd_per_hour=0.8), Attempt(31, 10, num_ranks=4, step_s=0.35, usd_per_hour=0.9),
     Attempt(40, 30, step_s=0.55, usd_per_hour=1.1)),
)  # fmt: skip
CASES = (
    Case("more tokens, on more ranks", _PLAN, (Attempt(60, num_ranks=4, step_s=0.3),)),
    Case("checkpointing, at another price", _PLAN,
         (Attempt(40, step_s=0.62, again=10**12, usd_per_hour=2.6),)),
    Case("a larger model and batch", _PLAN,
         (Attempt(20, step_s=1.7, flops=13 * 10**12, tokens=16384),)),
    Case("a run killed at step 29 and resumed from 20", _PLAN, (Attempt(29), Attempt(40, 20))),
    STORY,
    Case("a plan that was interrupted, too", (Attempt(25, again=10**12), Attempt(40, 15)),
         (Attempt(12, step_s=0.45), Attempt(40, 8, num_ranks=3, step_s=0.4, usd_per_hour=1.5))),
)  # fmt: skip
