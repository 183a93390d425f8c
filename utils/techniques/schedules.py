"""The best schedule for a chain of equal layers: Revolve's binomial checkpointing.

How it works: with room for `num_inputs` layer inputs beside the layer that is at work, the chain is
cut once; the part after the cut is solved with one place less, then the part before it, which runs
again, with all places. Where to cut has a closed form behind it: with s places and no layer running
more than r times, the longest chain is C(s + r - 1, s) (Griewank & Walther 2000, Algorithm 799;
recalled, so the tests search all schedules of short chains instead of believing it).

Left out: layers of different sizes, and keeping what a layer saves for longer (budget.py).
"""

from functools import cache
from math import comb

from utils.techniques.segments import Plan


@cache
def fewest_runs(num_layers: int, num_inputs: int) -> int:
    """Fewest forward runs of a layer that a backward pass through the chain needs.

    `num_inputs` inputs can be kept at once, the chain's own among them; only the layer whose
    backward runs may keep what it saves. Raises ValueError without a layer or without room for the
    chain's own input.
    """
    _require_room(num_layers, num_inputs)
    if num_layers == 1:
        return 1
    if num_inputs == 1:
        return num_layers * (num_layers + 1) // 2  # from the start again for each layer
    return min(runs for runs, _ in _cuts(num_layers, num_inputs))


@cache
def binomial_plan(num_layers: int, num_inputs: int, first: int = 0) -> Plan:
    """A plan with the fewest runs for layers `first`, `first` + 1, ..., as `fewest_runs` counts."""
    _require_room(num_layers, num_inputs)
    if num_layers == 1:
        return (first,)
    if num_inputs == 1:  # the last layer first; everything before it runs again for the next
        return (binomial_plan(num_layers - 1, 1, first), first + num_layers - 1)
    _, cut = min(_cuts(num_layers, num_inputs))
    before = binomial_plan(cut, num_inputs, first)
    return (before, *binomial_plan(num_layers - cut, num_inputs - 1, first + cut))


def longest_chain(num_inputs: int, num_runs: int) -> int:
    """The longest chain in which no layer runs more than `num_runs` times: C(s + r - 1, s)."""
    return comb(num_inputs + num_runs - 1, num_inputs)


def _require_room(num_layers: int, num_inputs: int) -> None:
    if num_layers < 1 or num_inputs < 1:
        raise ValueError(
            f"A schedule needs at least one layer and room for one input, not {num_layers} "
            f"layers and {num_inputs} inputs."
        )


def _cuts(num_layers: int, num_inputs: int) -> list[tuple[int, int]]:
    """(runs, where the chain is cut) for every first cut."""
    return [
        (
            cut + fewest_runs(num_layers - cut, num_inputs - 1) + fewest_runs(cut, num_inputs),
            cut,
        )
        for cut in range(1, num_layers)
    ]
