"""Which single change of a request helps most, found by planning again with that change.

How it works: each change gives another `PlanRequest`, of which the cheapest feasible recipe is
compared with that of the request as it is. Nothing is guessed: a change whose plan is no cheaper,
or not feasible either, is no advice. If nothing is feasible, a change that makes it so helps.

`fewest_gpus` says on how many GPUs a model fits at all.
Left out: two changes at a time; buying, which pays only over years (utils.prices).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from utils.hardware import load_chips
from utils.planning.hour_price import hour_price
from utils.planning.options import (
    LIBRARY_OF,
    PlannedRecipe,
    planned_recipes,
    precisions,
    usable_bytes,
)
from utils.planning.recipe_bytes import recipe_bytes
from utils.planning.request import PlanRequest
from utils.planning.texts import dollars, duration
from utils.recipe import METHODS, WHOLE_WEIGHTS, TrainingRecipe

MOST_GPUS = 65_536
OTHER_KINDS = ("on-demand", "spot", "marketplace")


@dataclass(frozen=True)
class Change:
    """One change, and the best recipe before (None: nothing was feasible) and after it."""

    words: str
    request: PlanRequest
    before: PlannedRecipe | None
    after: PlannedRecipe

    @property
    def saved_usd(self) -> float:
        """Dollars less than before; infinite if nothing was feasible before."""
        return float("inf") if self.before is None else self.before.usd - self.after.usd

    def sentence(self) -> str:
        """E.g. "spot instead of on-demand: $27.31 -> $18.20, 2.03 hours, by bf16, 8 x FSDP"."""
        before = "nothing feasible" if self.before is None else dollars(self.before.usd)
        return (
            f"{self.words}: {before} -> {dollars(self.after.usd)}, {duration(self.after.days)}, by "
            f"{self.after.recipe.name}"
        )


def helpful_changes(request: PlanRequest, best: PlannedRecipe | None) -> list[Change]:
    """Changes that are cheaper than the best recipe, or make one feasible; the cheapest first."""
    changes = []
    for words, changed in _changes(request):
        after = cheapest(changed)
        if after is not None and (best is None or after.usd < 0.999 * best.usd):
            changes.append(Change(words, changed, best, after))
    return sorted(changes, key=lambda change: change.after.usd)


def cheapest(request: PlanRequest) -> PlannedRecipe | None:
    """The feasible recipe with the fewest dollars; None without one, or without a price."""
    try:
        planned = planned_recipes(request, hour_price(request))
    except ValueError:  # no price of that kind, no method for so many GPUs
        return None
    feasible = [each for each in planned if not each.problem]
    return min(feasible, key=lambda each: (each.usd, each.days), default=None)


def fewest_gpus(request: PlanRequest) -> int | None:
    """On how many of these chips, in full nodes, one sequence at a time fits; None if on none."""
    low_precision, room = precisions(request.chip_row)[0], usable_bytes(request)
    again = "blocks" if request.checkpointing == "allowed" else "none"

    def fits(num_gpus: int) -> bool:
        return any(
            recipe_bytes(recipe, request.config, 0, "nccl").peak.total <= room
            for recipe in _smallest(request, num_gpus, low_precision, again)
        )

    node = request.gpus_per_node
    if any(fits(count) for count in range(1, node + 1)):
        return next(count for count in range(1, node + 1) if fits(count))
    low, high = 1, MOST_GPUS // node  # nodes
    if not fits(high * node):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle * node) else (middle, high)
    return high * node


def _smallest(
    request: PlanRequest, num_gpus: int, precision: str, again: str
) -> Iterator[TrainingRecipe]:
    for method in request.methods:
        if (method == "single") == (num_gpus == 1):
            whole = method in WHOLE_WEIGHTS
            each = "fp32" if precision == "fp16" and not whole else precision
            yield TrainingRecipe(
                each, "fused", again, method, LIBRARY_OF[method], 1, 1, num_gpus
            )


def _changes(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    """Everything that can be changed alone; what makes no request is left out."""
    for words, changes in _candidates(request):
        try:
            yield words, replace(request, **changes)
        except ValueError:
            continue


def _candidates(request: PlanRequest) -> Iterator[tuple[str, dict[str, object]]]:
    if request.checkpointing == "off":
        yield "checkpointing allowed", {"checkpointing": "allowed"}
    if set(request.methods) != set(METHODS):
        yield "another method allowed", {"methods": METHODS}
    twice, half = 2 * request.num_gpus, request.num_gpus // 2
    sequences = request.step_sequences
    yield f"{twice} GPUs", {"num_gpus": twice, "sequences_per_step": _divided(sequences, twice)}
    if half:
        yield f"{half} GPUs", {"num_gpus": half, "sequences_per_step": sequences}
    if request.num_gpus > 1 and fewest_gpus(request) not in (None, request.num_gpus):
        few = fewest_gpus(request)
        yield f"{few} GPUs", {"num_gpus": few, "sequences_per_step": _divided(sequences, few)}
    for factor, words in ((2, "twice"), (0.5, "half")):
        yield f"{words} the sequences a step", {"sequences_per_step": int(sequences * factor)}
    if request.deadline_days is not None:
        longer = 2 * request.deadline_days
        yield f"a deadline of {longer:g} days", {"deadline_days": longer}
    if request.budget_usd is not None:
        larger = 2 * request.budget_usd
        yield f"a budget of {dollars(larger)}", {"budget_usd": larger}
    for kind in OTHER_KINDS:
        if kind != request.price:
            yield f"{kind} instead of {request.price}", {"price": kind, "usd_per_gpu_hour": None}
    if request.usd_per_gpu_hour is None:  # your own price is of this chip
        for chip in load_chips():
            if chip.name != request.chip:
                links = {"inside": None, "between": None}
                yield f"{chip.name} instead of {request.chip}", {"chip": chip.name, **links}


def _divided(sequences: int, num_gpus: int) -> int:
    """The nearest batch that so many GPUs can share."""
    return num_gpus * max(1, round(sequences / num_gpus))
