"""Rows of the lesson's tables about YaFSDP's published runs: readings, errors, other fits.

How it works: plain texts made from `utils.yafsdp_table` and `utils.simulate.yafsdp_published`.
Left out: any judgement of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from utils.simulate.yafsdp_published import (
    RunPrediction,
    calibrate_published,
    calibration_runs,
    median_time_error,
    predict_yafsdp,
    speedup_rank_correlation,
)
from utils.yafsdp_table import PublishedRun, load_yafsdp_published

PUBLISHED_HEADERS = [
    "model", "GPUs", "tokens per GPU", "FSDP, s", "YaFSDP, s", "time saved", "more throughput",
    "fewer dollars",
]  # fmt: skip
LENGTH_HEADERS = ["tokens", "held-out rows", "errors of time", "rank correlation"]
FIT_HEADERS = ["fitted to", "rows", "median error of the rest", "rank correlation"]


def published_rows(runs: Sequence[PublishedRun]) -> list[list[str | int]]:
    """Each run with its three percentages; the first is the printed one."""
    return [
        [
            run.model, run.num_gpus, run.sequence_length, f"{run.fsdp_s:.2f}",
            f"{run.yafsdp_s:.2f}", f"{run.speedup_percent:.1f} %",
            f"{run.readings.more_throughput_percent:.1f} %",
            f"{run.readings.fewer_dollars_percent:.1f} %",
        ]
        for run in runs
    ]  # fmt: skip


def length_rows(predictions: Sequence[RunPrediction]) -> list[list[str | int]]:
    """Range of time errors and rank correlation, of each sequence length with several runs."""
    rows = []
    for length in sorted({each.run.sequence_length for each in predictions}):
        some = [each for each in predictions if each.run.sequence_length == length]
        if len(some) > 1:
            errors = [100 * error for each in some for error in each.errors]
            order = f"{speedup_rank_correlation(some):.2f}"
            rows.append([length, len(some), f"{min(errors):+.0f} to {max(errors):+.0f} %", order])
    return rows


def other_fits() -> dict[str, tuple[PublishedRun, ...]]:
    """Sets of runs to fit to; the first is the one that was written down beforehand."""
    runs = load_yafsdp_published()
    return {
        "the corners": calibration_runs(),
        "the first four": runs[:4],
        "every fourth": runs[::4],
        "the last four": runs[-4:],
    }


def fit_rows(choices: Mapping[str, Sequence[PublishedRun]]) -> list[list[str | int]]:
    """How well a fit to the chosen runs predicts all others."""
    rows = []
    for name, chosen in choices.items():
        predictions = predict_yafsdp(calibrate_published(tuple(chosen)))
        unseen = [each for each in predictions if each.run not in chosen]
        error, order = median_time_error(unseen), speedup_rank_correlation(unseen)
        rows.append([name, len(chosen), f"{error:.1%}", f"{order:.2f}"])
    return rows
