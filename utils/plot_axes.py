"""Axes that speak in the course's units: bytes as MiB or GiB, dollars, powers of two, phases.

How it works: each function takes an axes and "x" or "y" and replaces that axis' ticks and labels.
`bytes_text` and `usd_text` write one number the same way, for bars, labels and readings.
Left out: decimal bytes (1 GB = 1e9 bytes); the course counts in binary units only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

Which = Literal["x", "y"]
_BYTE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_USD_UNITS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def bytes_text(num_bytes: float) -> str:
    """Write a number of bytes in the unit that fits it: 3 digits, e.g. "14.0 GiB"."""
    size, unit = _byte_unit(num_bytes)
    value = num_bytes / size
    return f"{value:,.0f} {unit}" if size == 1 or value >= 100 else f"{value:#.3g} {unit}"


def usd_text(usd: float) -> str:
    """Write dollars as "$0.0012", "$12.30", "$12,300" or "$2.41 million"."""
    sign, usd = ("-" if usd < 0 else ""), abs(usd)
    for size, word in _USD_UNITS:
        if usd >= size:
            return f"{sign}${usd / size:,.3g} {word}"
    if usd >= 1000 or usd == 0:
        return f"{sign}${usd:,.0f}"
    decimals = 2 if usd >= 0.1 else 1 - math.floor(math.log10(usd))
    return f"{sign}${usd:,.{decimals}f}"


def bytes_axis(axes: Axes, which: Which = "y") -> None:
    """Ticks at round binary sizes, one unit for the axis; a logarithmic axis gets powers of two."""
    axis = _axis(axes, which)
    if axis.get_scale() == "log":
        _power_of_two_ticks(axis)
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short_bytes(value, value)))
        return
    axis.set_major_locator(_BinaryLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: _short_bytes(value, max(map(abs, axis.get_view_interval()))))
    )


def log2_axis(axes: Axes, which: Which = "x") -> None:
    """Make the axis logarithmic with ticks at powers of two, written as plain numbers."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", base=2)
    axis = _axis(axes, which)
    _power_of_two_ticks(axis)
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"1/{1 / value:,.0f}")
    )


def usd_axis(axes: Axes, which: Which = "y") -> None:
    """Write the axis' ticks in dollars, e.g. "$500,000" or "$2.5 million"."""
    axis = _axis(axes, which)
    axis.set_major_formatter(FuncFormatter(lambda value, _: usd_text(round(value, 9))))


class _BinaryLocator(MaxNLocator):
    """Round numbers of the axis' byte unit: 512 MiB, not 500,000,000 bytes."""

    def __init__(self) -> None:
        super().__init__(nbins=6, steps=[1, 2, 5, 10])

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        size, _ = _byte_unit(max(abs(vmin), abs(vmax)))
        return super().tick_values(vmin / size, vmax / size) * size


def _byte_unit(num_bytes: float) -> tuple[int, str]:
    """Return the unit's size in bytes and its name: the largest unit that does not exceed it."""
    power = 0
    while power + 1 < len(_BYTE_UNITS) and abs(num_bytes) >= 1024 ** (power + 1):
        power += 1
    return 1024**power, _BYTE_UNITS[power]


def _short_bytes(num_bytes: float, largest: float) -> str:
    size, unit = _byte_unit(largest)
    return f"{num_bytes / size:,.6g} {unit}" if num_bytes else "0"


def _power_of_two_ticks(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(base=2, numticks="auto"))
    axis.set_minor_locator(NullLocator())


def _axis(axes: Axes, which: Which) -> Axis:
    if which not in ("x", "y"):
        raise ValueError(f'which is {which!r}; choose the axis "x" or "y".')
    return axes.xaxis if which == "x" else axes.yaxis


def phases_axis(axes: Axes, phases: Sequence[str]) -> None:
    """Divide the x axis into phases of width 1, each with its name below its middle."""
    axes.set_xlim(0, len(phases))
    axes.set_xticks([place + 0.5 for place in range(len(phases))], phases)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    for place in range(1, len(phases)):
        axes.axvline(place, color="black", linestyle="--", linewidth=0.8)
