"""A link from measurements: latency and bandwidth that explain how long messages took.

How it works: a collective of S bytes takes steps x latency + path bytes / bandwidth, two unknowns
in which the time is linear. Of repeated sizes the median counts. The fit is least squares on
relative errors, so that a small message counts as much as a large one. It is repeated with smaller
weights for errors above twice the median error (Huber's rule): one disturbed size hardly moves the
line. Neither unknown may be negative: a fit that wants one to be is repeated with it at nothing.

Left out: bandwidth that depends on the size (caches, protocols). `fit_errors` shows it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from utils.simulate.links import Link
from utils.simulate.traffic import Traffic

Measurement = tuple[float, float]  # bytes, seconds
TrafficOf = Callable[[float], Traffic]

_ROUNDS = 100
_SMALLEST_ERROR = 1e-6  # relative; what counts as a perfect fit


def one_message(num_bytes: float) -> Traffic:
    """The traffic of a plain message: one step, all bytes."""
    return Traffic(1, num_bytes, num_bytes)


def calibrate(
    measurements: Sequence[Measurement], traffic_of: TrafficOf = one_message
) -> Link:
    """The link that explains (bytes, seconds) best, in the sense of small relative errors.

    `traffic_of` says what bytes mean: for a collective, give
    `lambda size: traffic("all-reduce", "ring", size, num_ranks)`. Raises ValueError unless two
    different sizes were measured and all figures are positive.
    """
    times_s = _medians(measurements)
    rows = []
    for num_bytes, seconds in times_s.items():
        moved = traffic_of(num_bytes)
        rows.append((moved.num_steps / seconds, moved.path_bytes / seconds))
    weights = [1.0] * len(rows)
    for _ in range(_ROUNDS):
        latency_s, s_per_byte = _weighted_fit(rows, weights)
        errors = [abs(a * latency_s + b * s_per_byte - 1) for a, b in rows]
        usual = max(2 * statistics.median(errors), _SMALLEST_ERROR)
        weights = [min(1.0, usual / error) if error else 1.0 for error in errors]
    return Link(latency_s, 1 / s_per_byte if s_per_byte > 0 else math.inf, "calibrated")


def predicted_seconds(link: Link, num_bytes: float, traffic_of: TrafficOf = one_message) -> float:
    """What the link says a message or collective takes."""
    return traffic_of(num_bytes).seconds(link)


def fit_errors(
    link: Link, measurements: Sequence[Measurement], traffic_of: TrafficOf = one_message
) -> dict[float, float]:
    """For each size: predicted over measured (median) time, minus 1; 0.1 is 10 % too slow."""
    return {
        num_bytes: predicted_seconds(link, num_bytes, traffic_of) / seconds - 1
        for num_bytes, seconds in _medians(measurements).items()
    }


def median_error(
    link: Link, measurements: Sequence[Measurement], traffic_of: TrafficOf = one_message
) -> float:
    """The middle one of the absolute relative errors: the fit in one plain number."""
    return statistics.median(map(abs, fit_errors(link, measurements, traffic_of).values()))


def _medians(measurements: Sequence[Measurement]) -> dict[float, float]:
    """Median seconds of each size."""
    by_size: dict[float, list[float]] = {}
    for num_bytes, seconds in measurements:
        if not (0 < num_bytes < math.inf and 0 < seconds < math.inf):
            raise ValueError(
                f"A measurement is (bytes, seconds), both above 0, not ({num_bytes}, {seconds})."
            )
        by_size.setdefault(num_bytes, []).append(seconds)
    if len(by_size) < 2:
        raise ValueError(
            "A latency and a bandwidth need measurements of at least 2 different sizes, not "
            f"{len(by_size)}; take one small and one large message."
        )
    return {num_bytes: statistics.median(times) for num_bytes, times in sorted(by_size.items())}


def _weighted_fit(rows: list[tuple[float, float]], weights: list[float]) -> tuple[float, float]:
    """(latency, seconds per byte) >= 0 that bring a * latency + b * s_per_byte closest to 1."""
    aa = sum(w * a * a for (a, _), w in zip(rows, weights, strict=True))
    ab = sum(w * a * b for (a, b), w in zip(rows, weights, strict=True))
    bb = sum(w * b * b for (_, b), w in zip(rows, weights, strict=True))
    a1 = sum(w * a for (a, _), w in zip(rows, weights, strict=True))
    b1 = sum(w * b for (_, b), w in zip(rows, weights, strict=True))
    determinant = aa * bb - ab * ab
    latency_s, s_per_byte = (a1 * bb - b1 * ab) / determinant, (b1 * aa - a1 * ab) / determinant
    if latency_s < 0:
        return 0.0, b1 / bb
    if s_per_byte < 0:
        return a1 / aa, 0.0
    return latency_s, s_per_byte
