"""The cases that lab 10's choice of a recipe is judged by, and the right choice.

How it works: a choice is a `Way` of choosing: what a recipe is allowed to need, and what is made
small. The right one and each mistake are such ways, over all candidates of a job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from utils.checks.helpers import close_to
from utils.checks.truth_10_cloud import (
    Cloud,
    Job,
    candidates,
    peak_bytes,
    usd_of,
)
from utils.config import GPTConfig
from utils.recipe import TrainingRecipe

Number = Callable[[TrainingRecipe, Job, Cloud], float]
Test = Callable[[TrainingRecipe, Job, Cloud], bool]


@dataclass(frozen=True)
class Case:
    """A job, a cloud and the recipes to choose from."""

    name: str
    job: Job
    cloud: Cloud
    recipes: tuple[TrainingRecipe, ...]


def known_rate(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    """Whether the devices have the precision."""
    return cloud.flops_per_s(r.precision) > 0


def same_batch(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    """Whether a step has the sequences that the job wants."""
    return r.sequences_per_step == job.sequences_per_step


def enough_devices(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    """Whether so many devices can be rented."""
    return r.num_ranks <= cloud.max_devices


def fits(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    """Whether the peak is within a device's memory."""
    return peak_bytes(r, job) <= cloud.memory_bytes


def within_budget(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    """Whether the run is paid for."""
    return usd_of(r, job, cloud) <= job.budget_usd


RULES: dict[str, Test] = {
    "precision": known_rate, "batch": same_batch, "devices": enough_devices,
    "budget": within_budget, "memory": fits,
}  # fmt: skip


def allowed(recipe: TrainingRecipe, case: Case) -> str:
    """The first rule that the recipe breaks; empty if none."""
    broken = (name for name, rule in RULES.items() if not rule(recipe, case.job, case.cloud))
    return next(broken, "")


@dataclass(frozen=True)
class Way:
    """A way to choose; `rules` replaces some of RULES."""

    number: Number = usd_of  # as small as possible; the first of equals
    rules: tuple[tuple[str, Test], ...] = ()

    def choose(self, case: Case) -> TrainingRecipe | None:
        """The recipe that this way leads to."""
        ways = [r for r in case.recipes if self.allows(r, case)]
        return min(ways, key=lambda r: self.number(r, case.job, case.cloud), default=None)

    def allows(self, recipe: TrainingRecipe, case: Case) -> bool:
        """Whether it would be taken into account."""
        rules = (RULES | dict(self.rules)).values()
        return all(rule(recipe, case.job, case.cloud) for rule in rules)

    def explains(self, got: TrainingRecipe | None, case: Case) -> bool:
        """Whether it leads to this choice, or to one that it finds as good."""
        choice = self.choose(case)
        if None in (got, choice) or got == choice or self.number is nothing:
            return got == choice
        numbers = (self.number(each, case.job, case.cloud) for each in (got, choice))
        return self.allows(got, case) and close_to(*numbers, 1e-9)


def nothing(r: TrainingRecipe, job: Job, cloud: Cloud) -> float:
    """As if all recipes were equally good."""
    return 0.0


@cache
def best(case: Case) -> TrainingRecipe | None:
    """The cheapest recipe that breaks no rule."""
    return Way().choose(case)


def _mixed(sequences: int, others: int) -> tuple[TrainingRecipe, ...]:
    """Candidates, some of them with another number of sequences, in no helpful order."""
    found = candidates(sequences) + candidates(others)
    return tuple(found[k * 37 % len(found)] for k in range(len(found)))


def _cloud(
    name: str, memory_bytes: float, rates: Sequence[float], link: float, most: int = 4
) -> Cloud:
    return Cloud(name, int(memory_bytes), *rates, link, 0.6, most)


_DEEP = GPTConfig(8, 4, 64, 64)
_WIDE = GPTConfig(4, 4, 128, 64)
_LONG = GPTConfig(6, 4, 32, 256)
_RECIPES = _mixed(8, 4)
CASES = (
    Case("room for everything", Job(_DEEP, 8, 100, 1.0),
         _cloud("large", 5e8, (2e9, 5e9), 2e7), _RECIPES),
    Case("a model too large for a device", Job(_WIDE, 8, 100, 1.0),
         _cloud("small", 1.05e7, (2e9, 2.5e9), 1.5e7), _RECIPES),
    Case("long sequences, old devices", Job(_LONG, 8, 100, 1.0),
         _cloud("old", 9e6, (2e9, 0.0), 1e7), _RECIPES),
    Case("a slow link", Job(_WIDE, 8, 100, 1.0),
         _cloud("slow", 1.6e7, (2e9, 4e9), 4e6), _RECIPES),
    Case("two devices only", Job(_DEEP, 8, 100, 1.0),
         _cloud("two", 5.2e6, (2e9, 3e9), 2e8, 2), _RECIPES),
    Case("a budget that is too small", Job(_DEEP, 8, 100, 0.0045),
         _cloud("dear", 8e6, (2e9, 3e9), 2e7), _RECIPES),
)  # fmt: skip
