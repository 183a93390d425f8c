"""The roofline drawn: a chip's roofs with a step's parts on them, and what each part takes.

How it works: `draw_roofline` fills a figure and returns the sentence that reads it; `show_roofline`
does both in one line of a lesson. A part stands where its operations reach together: on the roof,
or below it where some are bound by compute and others by memory. Axes are logarithms on plain axes,
which draw faster. What the table of chips lacks is said in the reading, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from utils.config import PRESETS, GPTConfig
from utils.hardware import find_chip
from utils.measured import significant
from utils.plots import OKABE_ITO, new_figure, show
from utils.roofline import Roofline, flops_rate, has_rates, roofline
from utils.roofline_readings import roofline_reading

COMPUTE, MEMORY, BEFORE = OKABE_ITO[0], OKABE_ITO[1], "#999999"
INTENSITIES = (-2.0, 4.0)  # powers of ten of FLOPs per byte
PANELS = ((0.09, 0.415), (0.71, 0.27))  # left edge and width, of the figure's
CLOSE = 0.35  # powers of ten


def draw_roofline(
    figure: Figure,
    chip: str,
    model: str,
    batch_size: int,
    precision: str = "bf16",
    over: str = "fp32",
    measured: bool = False,
) -> str:
    """Left: both roofs and the parts of a step. Right: milliseconds of each part in both.

    `model` is a preset's name. A precision that the chip has no rate for is drawn as bf16.
    """
    row, config = find_chip(chip), find_preset(model)
    shown = precision if has_rates(row, precision) else "bf16"
    new = roofline(row, config, batch_size, shown, measured=measured)
    known = has_rates(row, over)
    old = roofline(row, config, batch_size, over, measured=measured) if known else None
    figure.set_layout_engine("none")  # measuring every label takes a third of a redraw
    roofs, times = (figure.add_axes((left, 0.24, width, 0.66)) for left, width in PANELS)
    _draw_roofs(roofs, new, old)
    _draw_times(times, new, old)
    handles = [Patch(color=COMPUTE), Patch(color=MEMORY, hatch="////"), Patch(color=BEFORE)]
    words = [f"{shown}, waits for compute", f"{shown}, waits for memory", over]
    count = 3 if old else 2
    figure.legend(handles[:count], words[:count], loc="lower left", ncols=3)
    return roofline_reading(new, old, model, config, batch_size, precision, over)


def show_roofline(
    chip: str,
    model: str,
    batch_size: int,
    precision: str = "bf16",
    over: str = "fp32",
    measured: bool = False,
) -> None:
    """Display the roofline of a preset's step and its reading."""
    figure = new_figure(8.4, 3.8)
    reading = draw_roofline(figure, chip, model, batch_size, precision, over, measured)
    show(figure, f"Roofline of {chip}", reading)


def find_preset(model: str) -> GPTConfig:
    """The preset of that name. Raises ValueError that lists the known ones."""
    if model not in PRESETS:
        raise ValueError(f"There is no preset {model!r}; choose one of {', '.join(PRESETS)}.")
    return PRESETS[model]


def _draw_roofs(axes: Axes, new: Roofline, old: Roofline | None) -> None:
    """Attainable TFLOP/s by FLOPs per byte, and the parts as numbered points."""
    formats = {new.precision.linear: "black", new.precision.product: "black"}
    if old:
        formats = {old.precision.linear: BEFORE, **formats}
    slope = math.log10(new.chip.bandwidth_tb_s)
    for name, color in formats.items():
        peak = flops_rate(new.chip, name, new.measured) / 1e12
        x, y = (math.log10(peak) - slope, INTENSITIES[1]), [math.log10(peak)] * 2
        axes.plot(x, y, color=color, marker="", linestyle="-", linewidth=1.5, zorder=1)
        axes.text(x[0] - 0.1, y[0], f"{name} {significant(peak)}", ha="right", fontsize=8)
    start, top = INTENSITIES[0], max(line.get_ydata()[0] for line in axes.get_lines())
    axes.plot([start, top - slope], [start + slope, top], color="black", marker="", linestyle="-")
    points = _points(new)
    for bound, color, marker in ((True, COMPUTE, "o"), (False, MEMORY, "s")):
        places = [place for _, place, by_compute in points if by_compute == bound]
        axes.plot(*zip(*places, strict=True), color=color, marker=marker, linestyle="")
    for numbers, (x, y) in _clusters([(number, place) for number, place, _ in points]):
        axes.text(x + 0.12, y - 0.1, numbers, va="top", fontsize=8)
    _powers(axes, "x", INTENSITIES)
    _powers(axes, "y", (start + slope, top + 0.4))
    axes.set(xlabel="FLOPs per byte", ylabel="TFLOP/s", title=f"Roofline of {new.chip.name}")


def _points(line: Roofline) -> list[tuple[int, tuple[float, float], bool]]:
    """Number, place and whether compute binds it, of every part."""
    return [
        (
            number,
            (math.log10(part.intensity), math.log10(part.flops / part.seconds / 1e12)),
            part.bound_by == "compute",
        )
        for number, part in enumerate(line.parts.values(), 1)
    ]


def _clusters(
    points: Sequence[tuple[int, tuple[float, float]]],
) -> list[tuple[str, tuple[float, float]]]:
    """Numbers of points that lie too close for labels of their own, at the rightmost of them."""
    groups: list[list[tuple[int, tuple[float, float]]]] = []
    for number, place in sorted(points, key=lambda each: each[1]):
        near = [group for group in groups if math.dist(group[-1][1], place) < CLOSE]
        (near[0] if near else groups.append([]) or groups[-1]).append((number, place))
    return [(" ".join(str(n) for n, _ in sorted(group)), group[-1][1]) for group in groups]


def _draw_times(axes: Axes, new: Roofline, old: Roofline | None) -> None:
    """Milliseconds of each part in the new precision, with the old one behind it."""
    parts, before = new.parts, old.parts if old else {}
    old_ms = [1e3 * before[name].seconds if name in before else 0.0 for name in parts]
    works = [1e3 * part.compute_bound_s for part in parts.values()]
    ends = [1e3 * part.seconds for part in parts.values()]
    zeros = [0.0] * len(parts)
    _bars(axes, zeros, old_ms, 0.4, facecolor=BEFORE)
    _bars(axes, zeros, works, 0.2, facecolor=COMPUTE)
    _bars(axes, works, ends, 0.2, facecolor=MEMORY, hatch="////", edgecolor="white", linewidth=0)
    names = [f"{number} {name}" for number, name in enumerate(parts, 1)]
    axes.set(xlim=(0, 1.05 * max(old_ms + ends)), ylim=(len(parts) - 0.4, -0.6))
    axes.set_yticks(range(len(parts)), names, fontsize=8)
    axes.set_title("Milliseconds of a step")
    axes.grid(False, axis="y")


def _bars(
    axes: Axes, starts: Sequence[float], ends: Sequence[float], half: float, **style: object
) -> None:
    """Horizontal bars in one collection, which draws faster than a patch each."""
    boxes = [
        [(start, place - half), (end, place - half), (end, place + half), (start, place + half)]
        for place, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    axes.add_collection(PolyCollection(boxes, **style), autolim=False)


def _powers(axes: Axes, which: str, limits: tuple[float, float]) -> None:
    """Ticks at every second power of ten, written as numbers."""
    powers = range(math.ceil(limits[0]), math.floor(limits[1]) + 1, 2)
    labels = [f"{10.0**power:,g}" for power in powers]
    (axes.set_xticks if which == "x" else axes.set_yticks)(list(powers), labels)
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
