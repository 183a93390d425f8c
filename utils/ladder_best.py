"""Which rungs of the ladder are best, and all that tie with them.

How it works: bytes tie when they are equal; seconds when the rounds do not tell two rungs apart
(`Comparison.verdict`).

Left out: the sentences around the names (`utils.ladder_report`, `utils.ladder_plots`).
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.experiments.ladder_results import RungResult, per_token


def cheapest(results: Sequence[RungResult]) -> list[RungResult]:
    """The rung with the fewest device-seconds a token and all that the rounds do not tell from it,
    in the ladder's order. Raises ValueError if none ran."""
    ran = [each for each in results if each.timing]
    if not ran:
        raise ValueError("No rung of this ladder ran, so that none is the cheapest: climb again.")
    best = min(ran, key=lambda each: each.usd_per_billion_tokens(1.0)).rung.name
    times = per_token(ran)
    return [each for each in ran if times.verdict(each.rung.name, best) != "slower"]


def lowest(results: Sequence[RungResult]) -> list[RungResult]:
    """The rungs with the fewest bytes at the peak, on the fullest rank; several with equal ones."""
    ran = [each for each in results if each.timing]
    fewest_bytes = min(each.peak_bytes for each in ran)
    return [each for each in ran if each.peak_bytes == fewest_bytes]


def names_of(rungs: Sequence[RungResult]) -> str:
    """E.g. "fp32", or "fp32 and bf16 (they tie)"."""
    *names, last = (each.rung.name for each in rungs)
    return f"{', '.join(names)} and {last} (they tie)" if names else last
