"""Do two lists of numbers put things in the same order? Spearman's rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """The correlation of the ranks: 1 is the same order, -1 the opposite one, about 0 none.

    Equal values share the middle of their ranks. Raises ValueError unless both lists have the same
    length, and each at least two different values.
    """
    if len(first) != len(second) or len({*first}) < 2 or len({*second}) < 2:
        raise ValueError("A rank correlation needs two lists of equal length that both vary.")
    a, b = _centred_ranks(first), _centred_ranks(second)
    products = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return products / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def _centred_ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    ranks = [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]
    middle = fmean(ranks)
    return [rank - middle for rank in ranks]
