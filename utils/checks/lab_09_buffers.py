"""Judge of lab 09, room for all layers: a plan of units and buffers, run on real ranks."""

from collections.abc import Callable, Sequence
from numbers import Integral

import torch

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, format_bytes, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_09_buffers import CASES, Case, Plan, Run, buffers_trial, one_process
from utils.checks.truth_09_buffers_mistakes import place_mistake, size_mistake, unit_mistake

LIKELY_STUCK = "the plan must be the same on all ranks"


@exercise(
    "09.3",
    "room for all layers",
    hints=[
        "First the units: each layer without its norms, then all norms. Which layers use buffer 0, "
        "and how many values does the largest of them send, padding included?",
        "places[k] = k % count with count = min(num_buffers, len(layers)), None for the norms; "
        "sizes[b] = max of -(-values // world_size) * world_size over the layers b, b + count, ... "
        "Without norms there is no unit for them.",
    ],
    seconds=150,
    lab="lab_09_yafsdp",
)
def judge_buffers(answer: Callable) -> str:
    """Five models on two and three ranks: weights, collectives, bytes held."""
    require_function(answer)
    plans = [_plan(case, answer(case.layers, case.num_ranks, case.num_buffers)) for case in CASES]
    for case, plan in zip(CASES, plans, strict=True):
        _require_fitting(case, plan)
    runs: dict[str, Run] = {}
    for num_ranks in sorted({case.num_ranks for case in CASES}):
        some = [(case, plan) for case, plan in zip(CASES, plans, strict=True)
                if case.num_ranks == num_ranks]  # fmt: skip
        cases = [case for case, _ in some]
        # A plan is data: it is the ranks' work that uses it, not the learner's function.
        by_rank = on_ranks(
            buffers_trial, num_ranks, [plan for _, plan in some], cases, likely=LIKELY_STUCK
        )
        for (case, plan), run in zip(some, by_rank[0], strict=True):
            _require_run(case, plan, run)
            runs[case.name] = run
    first, case = runs[CASES[0].name], CASES[0]
    return (
        f"{len(CASES)} models train as one process does. {case.name}: {first.num_gathers} gathers "
        f"and {first.num_reductions} reductions a step, and a rank holds "
        f"{format_bytes(first.held_bytes)} with buffers of {case.plan.sizes} values."
    )


def _plan(case: Case, got: object) -> Plan:
    likely = "the function ends without a return" if got is None else ""
    is_triple = isinstance(got, (tuple, list)) and len(got) == 3
    require(is_triple, "Return (units, places, sizes)", got=got, likely=likely)
    require(all(isinstance(each, Sequence) for each in got), "Return three lists", got=got)
    units, places, sizes = (list(each) for each in got)
    require(all(isinstance(unit, (list, tuple)) for unit in units), "units is a list of lists",
            got=units, likely="a unit is the names that travel together")  # fmt: skip
    whole = all(isinstance(size, Integral) for size in sizes)
    require(whole, f"For {case.name}, sizes must be whole numbers", got=sizes,
            likely="-(-values // world_size) * world_size is one")  # fmt: skip
    require(len(places) == len(units), f"For {case.name}, each unit needs a place",
            len(units), len(places), "None for the unit of the norms")  # fmt: skip
    return Plan([list(unit) for unit in units], places, [int(size) for size in sizes])


def _require_fitting(case: Case, plan: Plan) -> None:
    """Everything that would keep the plan from being run."""
    where = f"For {case.name}"
    values = {name: size for layer in case.layers for name, size in layer.items()}
    named = [name for unit in plan.units for name in unit]
    require(all(plan.units), f"{where}, a unit is empty", likely="a model may have no norms")
    missing = [name for name in values if name not in named]
    likely = "norms travel, too: one unit for all of them"
    require(not missing, f"{where}, {missing[:1]} is in no unit", likely=likely)
    require(sorted(named) == sorted(values), f"{where}, a name is unknown or in two units")
    placed = [(unit, place) for unit, place in zip(plan.units, plan.places, strict=True)
              if place is not None]  # fmt: skip
    known = all(place in range(len(plan.sizes)) for _, place in placed)
    require(known, f"{where}, a place is no buffer's number", range(len(plan.sizes)), plan.places,
            "places count from 0, and sizes has one entry for each buffer")  # fmt: skip
    for unit, place in placed:
        numbers = sorted({int(name.split(".")[1]) for name in unit})
        likely = "norms stay where they are: None is their place"
        if not all("norm" in name for name in unit):
            likely = "a unit in a buffer is one layer's"
        require(len(numbers) == 1, f"{where}, a unit of layers {numbers} shares buffer {place}",
                likely=likely)  # fmt: skip
        need = sum(values[name] for name in unit)
        need = -(-need // case.num_ranks) * case.num_ranks
        what = f"{where}, buffer {place} is too small for a unit of layer {numbers[0]}, in values"
        likely = size_mistake(case, plan)
        require(plan.sizes[place] >= need, what, need, plan.sizes[place], likely)
    _require_turns(case, plan)


def _require_turns(case: Case, plan: Plan) -> None:
    owners = [place for unit, place in zip(plan.units, plan.places, strict=True)
              if not all("norm" in name for name in unit)]  # fmt: skip
    likely = unit_mistake(case, plan) or "each layer's unit needs a buffer, in the order of layers"
    fine = None not in owners and len(owners) == len(case.layers)
    require(fine, f"For {case.name}, the units are others", len(case.layers), len(owners), likely)
    right = [place for place in case.plan.places if place is not None]
    require(owners == right, f"For {case.name}, the layers have other buffers", right, owners,
            place_mistake(case, plan, owners))  # fmt: skip


def _require_run(case: Case, plan: Plan, run: Run) -> None:
    where = f"On {case.num_ranks} ranks, {case.name}"
    truth = one_process(case)
    equal = (torch.allclose(a, b, atol=1e-5) for a, b in zip(run.weights, truth, strict=True))
    require(all(equal), f"{where}: the weights differ from one process")
    num_gathers, num_reductions, held_bytes = case.expected
    pairs = ("gathers", num_gathers, run.num_gathers), (
        "reductions", num_reductions, run.num_reductions)  # fmt: skip
    for what, expected, got in pairs:
        likely = unit_mistake(case, plan)
        require(got == expected, f"{where}: another number of {what} in a step", expected, got,
                likely)  # fmt: skip
    if run.held_bytes != held_bytes:
        sizes = format_bytes(held_bytes), format_bytes(run.held_bytes)
        raise NotYet(f"{where}: right, but a rank holds more than it must", *sizes,
                     size_mistake(case, plan) or unit_mistake(case, plan))  # fmt: skip
