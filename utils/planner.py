"""The planner: a model, tokens, GPUs, a price -> recipes ranked by dollars, and why others are out.

How it works: `plan(request)` predicts bytes, seconds and dollars of every recipe that the request
leaves open (utils.planning.options), ranks the feasible ones by dollars, and keeps the others with
their problem. `Plan.advice` is the single change of the request that saves most, found by planning
again. In a terminal:

    python -m utils.planner --model gpt2-124m --tokens 10e9 --chip "H100 SXM" --gpus 8

prints the plan and the command that trains by it. What the predictions rest on is in
utils.planning.assumptions, how far they can be trusted in utils.planning.published.

Left out: tensor and pipeline parallelism, fp8, offloading; restarts, evaluations, people.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from utils.planning.advice import Change, fewest_gpus, helpful_changes
from utils.planning.hour_price import HourPrice, hour_price
from utils.planning.options import PlannedRecipe, planned_recipes
from utils.planning.plan_table import plan_lines
from utils.planning.request import PRICES, PlanRequest
from utils.planning.texts import dollars, duration, share, token_count
from utils.recipe import METHODS

TIE = 0.02  # of the dollars: closer than anything that the planner was checked against

__all__ = ["Change", "Plan", "PlanRequest", "PlannedRecipe", "main", "plan"]


@dataclass(frozen=True)
class Plan:
    """What was asked, and every recipe, feasible or with its problem."""

    request: PlanRequest
    hour: HourPrice
    feasible: tuple[PlannedRecipe, ...]  # the cheapest first
    refused: tuple[PlannedRecipe, ...]  # each with a problem; the nearest to fitting first

    @property
    def best(self) -> PlannedRecipe | None:
        """The cheapest, or None."""
        return self.feasible[0] if self.feasible else None

    @property
    def ties(self) -> tuple[PlannedRecipe, ...]:
        """Other recipes so nearly as cheap that the planner cannot tell them from the best."""
        return _as_cheap(self.feasible)

    @cached_property
    def changes(self) -> list[Change]:
        """Single changes that help, the cheapest first; takes some seconds, once."""
        return helpful_changes(self.request, self.best)

    @property
    def advice(self) -> Change | None:
        """The change that helps most, or None if none does."""
        return self.changes[0] if self.changes else None

    @cached_property
    def verdict(self) -> str:
        """One sentence: the best recipe, or why there is none and what is missing."""
        request, best = self.request, self.best
        if best is not None:
            tied = _others(self.ties)
            is_best = f"ties with {tied} as" if tied else "is"
            return (
                f"{best.recipe.name} {is_best} the cheapest of {len(self.feasible)} recipes that "
                f"work: {dollars(best.usd)} and {duration(best.days)} for "
                f"{token_count(request.tokens)} of {request.model_name}, at {share(best.mfu)} MFU."
            )
        if any(not each.is_too_large for each in self.refused):
            nearest = self.refused[0]
            tied = _others(_as_cheap([each for each in self.refused if not each.is_too_large]))
            near = f"{nearest.recipe.name},{f' tied with {tied},' * bool(tied)}"
            return (
                f"Nothing meets deadline and budget; the nearest is {near} which {nearest.problem}."
            )
        return self._fits_nowhere()

    def _fits_nowhere(self) -> str:
        request, fewest = self.request, fewest_gpus(self.request)
        gpus = f"{request.num_gpus:,} {request.chip}"
        if fewest is None:
            return (
                f"{request.model_name} fits on no number of {request.chip} by these recipes: one "
                f"sequence alone {self.refused[0].problem}."
            )
        return (
            f"{request.model_name} does not fit on {gpus} by any recipe here; the smallest "
            f"number on which it does is {fewest:,}."
        )


def _as_cheap(ranked: Sequence[PlannedRecipe]) -> tuple[PlannedRecipe, ...]:
    """Those after the first within TIE of its dollars."""
    return tuple(each for each in ranked[1:] if each.usd <= (1 + TIE) * ranked[0].usd)


def _others(tied: Sequence[PlannedRecipe]) -> str:
    """E.g. "4 others (within 2%)"; nothing for none."""
    count = len(tied)
    return f"{count} other{'s' * (count > 1)} (within {TIE:.0%})" if count else ""


def plan(request: PlanRequest) -> Plan:
    """Rank the recipes. Raises ValueError, in one sentence, for a chip without such a price."""
    hour = hour_price(request)
    planned = planned_recipes(request, hour)
    feasible = sorted(
        (each for each in planned if not each.problem), key=lambda each: (each.usd, each.days)
    )
    refused = sorted(
        (each for each in planned if each.problem),
        key=lambda each: (each.is_too_large, each.peak.total if each.is_too_large else each.usd),
    )
    return Plan(request, hour, tuple(feasible), tuple(refused))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[:1].upper()}{message[1:]} (--help lists all options).")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m utils.planner", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model", required=True, help="a preset or a published Llama, e.g. gpt2-124m")
    add("--tokens", required=True, type=float, help="to train on, e.g. 10e9")
    add("--chip", default=PlanRequest.chip, help="a row of utils/data/chips.csv")
    add("--gpus", dest="num_gpus", type=int, default=PlanRequest.num_gpus)
    add("--price", default=PlanRequest.price, metavar="|".join(PRICES))
    add("--usd-per-gpu-hour", type=float, help="your own price; before lost hours with spot")
    add("--gpus-per-node", type=int, default=PlanRequest.gpus_per_node)
    add("--inside", help="link inside a node, a name of utils.simulate.links.LINKS")
    add("--between", help="link between nodes")
    add("--sequences-per-step", type=int, help="of all GPUs; about half a million tokens without")
    add("--deadline-days", type=float)
    add("--budget-usd", type=float)
    add("--methods", nargs="+", default=METHODS, metavar="|".join(METHODS))
    add("--checkpointing", default="allowed", metavar="allowed|off")
    add("--no-advice", action="store_true", help="leave out planning again with each change")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Print the plan; 2 and one sentence for a request that makes no sense, 1 for no recipe."""
    try:
        given = vars(_parser().parse_args(words))
        with_advice = not given.pop("no_advice")
        found = plan(PlanRequest(**given | {"methods": tuple(given["methods"])}))
    except ValueError as error:
        print(f"utils.planner: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # torch looks for a temporary folder when it first counts
        print(f"utils.planner: The plan cannot be made ({error.strerror or error}): free some disk "
              "space; `python -m utils.check_env` says more.", file=sys.stderr)  # fmt: skip
        return 2
    advice = found.advice.sentence() if with_advice and found.advice else ""
    print("\n".join(plan_lines(found.request, found.hour, found.feasible, found.refused)))
    print(f"\n{found.verdict}")
    if with_advice:
        print(f"What would help most: {advice or 'no single change'}.")
    return 0 if found.best else 1


if __name__ == "__main__":
    raise SystemExit(main())
