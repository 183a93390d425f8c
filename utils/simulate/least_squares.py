"""Least squares by Gauss-Newton: parameters that make a list of errors as small as possible.

How it works: the errors are taken to be linear near the present parameters, with slopes from small
steps; the linear problem gives the next step, which is halved until the sum of squares falls.
Parameters are positive, so the steps are taken in their logarithms.

Left out: bounds other than above 0, and any promise to find more than the nearest valley.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Errors = Callable[[Sequence[float]], Sequence[float]]

_STEP = 1e-4  # relative, for the slopes
_ENOUGH = 1e-7  # relative gain below which nothing more is won
_ROUNDS, _HALVINGS = 40, 12


def least_squares(errors: Errors, start: Sequence[float]) -> tuple[float, ...]:
    """Parameters near `start` with the smallest sum of squared `errors`.

    Raises ValueError for a start that is not above 0, or fewer errors than parameters.
    """
    if not all(0 < value < math.inf for value in start):
        raise ValueError(f"Every parameter starts above 0, not {tuple(start)}.")
    logs = np.log(np.asarray(start, dtype=float))
    now = _at(errors, logs)
    if len(now) < len(logs):
        raise ValueError(f"{len(logs)} parameters need as many errors; there are {len(now)}.")
    for _ in range(_ROUNDS):
        slopes = [(_at(errors, logs + step) - now) / _STEP for step in _STEP * np.eye(len(logs))]
        step = np.linalg.lstsq(np.stack(slopes, axis=1), -now, rcond=None)[0]
        before = now @ now
        logs, now = _descend(errors, logs, step, now)
        if before - now @ now <= _ENOUGH * before:
            break
    return tuple(float(value) for value in np.exp(logs))


def _at(errors: Errors, logs: np.ndarray) -> np.ndarray:
    return np.asarray(errors([float(value) for value in np.exp(logs)]), dtype=float)


def _descend(
    errors: Errors, logs: np.ndarray, step: np.ndarray, now: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first of step, step / 2, step / 4 ... that lowers the sum of squares; else no step."""
    step = np.clip(step, -1.0, 1.0)  # a factor of e is far enough for a straight line
    for _ in range(_HALVINGS):
        after = _at(errors, logs + step)
        if after @ after < now @ now:
            return logs + step, after
        step = step / 2
    return logs, now
