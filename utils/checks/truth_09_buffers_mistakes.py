"""Which mistake leads to which plan of buffers in lab 09."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from utils.checks.truth_09_buffers import Case, Plan, padded

Sizes = list[int]


AVERAGE = "a buffer sized to the average layer does not hold the largest of its users"
LARGEST_OF_ALL = (
    "each buffer is as large as the largest of all layers: it needs room for its own users only"
)
NORMS = "norms are counted in the buffers: they have memory of their own"
PADDING = "the padding is forgotten: what travels is a multiple of world_size"


def size_mistake(case: Case, plan: Plan) -> str:
    """What explains the sizes of the buffers, or nothing."""
    count, num_layers = len(case.plan.sizes), len(case.layers)
    if plan.sizes == case.plan.sizes:
        return ""
    if len(plan.sizes) == num_layers != count:
        return "one buffer per layer: layers take turns in num_buffers of them"
    if len(plan.sizes) > count:
        return "no layer needs the last buffers: there are not more of them than layers"
    return next((text for text, sizes in _wrong_sizes(case) if sizes == plan.sizes), "")


def _wrong_sizes(case: Case) -> list[tuple[str, Sizes]]:
    """(mistake, the sizes that it leads to)."""
    count, ranks = len(case.plan.sizes), case.num_ranks
    whole = [sum(layer.values()) for layer in case.layers]
    bare = [sum(size for name, size in layer.items() if "norm" not in name)
            for layer in case.layers]  # fmt: skip
    users = [bare[place::count] for place in range(count)]
    largest, with_norms = [max(sizes) for sizes in users], [
        max(whole[place::count]) for place in range(count)]  # fmt: skip

    def rounded(sizes: Sequence[float]) -> Sizes:
        return [padded(int(size), ranks) for size in sizes]

    return [
        *_averages(bare, users, ranks),
        ("users take turns: a buffer holds one layer at a time, not all of them together",
         [sum(rounded(sizes)) for sizes in users]),
        (PADDING, largest),
        (LARGEST_OF_ALL, rounded([max(bare)] * count)),
        (NORMS, rounded(with_norms)),
        (NORMS, rounded([max(whole)] * count)),
        ("this is a shard's size: buffers hold whole layers",
         [size // ranks for size in rounded(largest)]),
        (PADDING, [max(bare)] * count),
        (PADDING, [size // ranks * ranks for size in largest]),
        ("the largest user counts, not the first", rounded(bare[:count])),
        ("the largest user counts, not the last", rounded([sizes[-1] for sizes in users])),
        ("the largest user counts, not the smallest", rounded([min(sizes) for sizes in users])),
        ("padded by a whole world_size: what divides evenly needs none",
         [(size // ranks + 1) * ranks for size in largest]),
    ]  # fmt: skip


def _averages(bare: Sizes, users: list[Sizes], ranks: int) -> list[tuple[str, Sizes]]:
    """The average of a buffer's users, or of all layers; rounded down or up, padded or not."""
    own = [statistics.mean(sizes) for sizes in users]
    of_all = [statistics.mean(bare)] * len(users)
    whole = [[rounds(size) for size in sizes] for sizes in (own, of_all)
             for rounds in (int, math.ceil)]  # fmt: skip
    return [(AVERAGE, sizes) for sizes in whole] + [
        (AVERAGE, [padded(size, ranks) for size in sizes]) for sizes in whole]  # fmt: skip


def place_mistake(case: Case, plan: Plan, layer_places: list[int]) -> str:
    """What explains which layer has which buffer."""
    count, num_layers = len(case.plan.sizes), len(layer_places)
    if layer_places == list(range(num_layers)):
        return "one buffer per layer: layers take turns in num_buffers of them"
    if len(set(layer_places)) == 1 and count > 1:
        return "all layers share one buffer: while one computes, nothing can be gathered"
    if layer_places == sorted(layer_places):
        return "neighbours share a buffer: they follow each other, so they need different ones"
    return "layer k takes buffer k modulo their number"


def unit_mistake(case: Case, plan: Plan) -> str:
    """What explains the units, if they are not the right ones."""
    if max(len(unit) for unit in plan.units) == 1:
        return "a unit per parameter: all of a layer but its norm travels together"
    norm_units = [unit for unit in plan.units if all("norm" in name for name in unit)]
    if any("norm" in name for unit in plan.units if unit not in norm_units for name in unit):
        return "norms travel with their layers: make them one unit of their own, the last one"
    if len(norm_units) > 1:
        return "norms are gathered per layer: one unit for the norms of all layers is enough"
    return ""
