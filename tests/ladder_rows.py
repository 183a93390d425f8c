"""Rungs as if they had run, in round numbers: what the tests of the ladder's reports show."""

from dataclasses import replace

from utils.experiments.ladder import RUNGS, RungResult
from utils.timing import Timing

STEPS_MS = (10, 20, 20, 30, 50, 60, 80, 80)
PEAKS = (10_000, 8_000, 6_000, 4_000, 5_000, 6_000, 3_000, 4_500)


def result(number, **changed):
    """A rung as if it had run: round numbers, three rounds around the median."""
    recipe, step_s = RUNGS[number].recipe, STEPS_MS[number] / 1e3
    made = RungResult(
        RUNGS[number],
        tokens_per_step=100 * recipe.sequences_per_step,
        flops_per_token=1000.0 if number < 3 else 1250.0,
        peak_bytes=1000 * PEAKS[number],
        held={"parameters": 1_000_000, "gradients": 500_000, "optimizer state": 500_000},
        timing=Timing((step_s, 0.99 * step_s, 1.02 * step_s)),
        num_tokens=8000,
        loss=3.0 + number / 100,
    )
    return replace(made, **changed)
