"""A published figure beside the planner's prediction, and what the fit of its constants had used.

How it works: `fit_used` tells runs that the two constants were fitted to, other runs of the same
blocks (as many layers, of the same widths), and the rest. Only the rest says something of a model
that the fit had not met, and even these rows were in sight when the planner was written.

Left out: the predictions themselves (utils.planning.published).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEADERS = ["run", "GPU-hours", "predicted", "error", "fit used", "what it leaves out"]
THE_RUN, ITS_BLOCKS, NEITHER = USES = ("this run", "its blocks", "neither")
WITHIN = 0.15


@dataclass(frozen=True)
class Check:
    """A published figure and the prediction."""

    run: str
    published: float  # GPU-hours, or seconds of a step
    predicted: float
    fit_used: str  # of USES: this very run, another run of the same blocks, or neither
    left_out: str

    @property
    def error(self) -> float:
        """Predicted over published, minus 1: below 0 is too fast."""
        return self.predicted / self.published - 1


def check_rows(checks: Sequence[Check]) -> list[list[str]]:
    """Rows of a table for the lesson, by HEADERS."""
    return [
        [
            each.run, _short(each.published), _short(each.predicted), f"{each.error:+.0%}",
            each.fit_used, each.left_out,
        ]
        for each in checks
    ]  # fmt: skip


def summary(checks: Sequence[Check], used: str) -> str:
    """How well the checks come out of which the fit used so much: a line for the lesson."""
    some = [each for each in checks if each.fit_used == used]
    within = sum(abs(each.error) <= WITHIN for each in some)
    median = f"median error {median_error(some):.0%}"
    return f"{used}: {within} of {len(some)} within {WITHIN:.0%}, {median}"


def median_error(checks: Sequence[Check]) -> float:
    """The middle one of the absolute errors."""
    return statistics.median(abs(each.error) for each in checks)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
