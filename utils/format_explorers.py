"""Explorers of number formats: a number taken apart bit by bit, and how far apart numbers lie.

How it works: as in `utils.explorers`, each `draw_...` fills a figure from plain values and returns
the sentence that reads it, and each `..._explorer` binds it to controls. Axes have fixed places,
made for BITS_SIZE and SPACING_SIZE: matplotlib would take longer to find places than to draw.
Left out: NaN and infinity as inputs, and formats with shared scales.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from ipywidgets import Dropdown, FloatLogSlider
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from utils.explorer import Explorer
from utils.plot_style import OKABE_ITO, text_color
from utils.techniques import formats
from utils.techniques.formats import FORMATS, NumberFormat, find_format

BITS_SIZE, SPACING_SIZE = (8.4, 3.6), (8.4, 3.8)  # inches
FIELDS = {  # name: (colour, first column, columns); one column holds one bit
    "sign": (text_color(OKABE_ITO[1]), 0.0, 1),
    "exponent": (text_color(OKABE_ITO[0]), 1.6, 8),
    "mantissa": (text_color(OKABE_ITO[2]), 10.2, 23),
}
COLUMN_ENDS = (-0.6, 43.0, 49.6)  # of the texts: format, kept value, error
CHOSEN, INK, GREY = OKABE_ITO[0], "#222222", "#8c8c8c"
LOW, HIGH = -30, 18  # the magnitudes of the staircases, as powers of two


def draw_bits(figure: Figure, value: float, sign: int, format_name: str) -> str:
    """What every format keeps of the number sign x value: its bits, their value, the error."""
    number, chosen = sign * value, find_format(format_name)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-9.2, 50.1), ylim=(len(FORMATS) + 0.5, -1.45))
    axes.set_axis_off()
    _write_row(axes, -0.78, (f"{number:.9g} in", "keeps", "error"), "bold", "bold")
    for name, (color, start, width) in FIELDS.items():
        axes.text(start + width / 2, -0.95, name, color=color, ha="center", weight="bold", size=9)
        axes.hlines(-0.7, start, start + width, color=color, linewidth=2.5)
    for row, format in enumerate(FORMATS.values()):
        kept = formats.round_to(number, format).item()
        weight, band = ("bold", "#ececec") if format is chosen else ("normal", "white")
        axes.axhspan(row - 0.5, row + 0.5, color=band, zorder=0)
        _write_row(axes, row, (format.name, f"{kept:.11g}", _error_text(number, kept)), weight)
    _draw_cells(axes, [formats.bits_of(number, format) for format in FORMATS.values()])
    axes.text(0, len(FORMATS) - 0.05, _formula(number, chosen), size=10, va="center")
    return _bits_reading(number, chosen)


def bits_explorer() -> Explorer:
    """A number of the learner's choice in every format, bit by bit."""

    def draw(figure: Figure, value: float, **others: int | str) -> str:
        return draw_bits(figure, float(f"{value:.6g}"), **others)  # the number the slider shows

    limits = {"min": -9, "max": 6, "step": 0.05}
    number = FloatLogSlider(0.1, **limits, readout_format=".6g", description="number (type yours)")
    sign = Dropdown(options=[("plus", 1), ("minus", -1)], description="sign")
    names = Dropdown(options=list(FORMATS), value="bf16", description="format")
    controls = {"value": number, "sign": sign, "format_name": names}
    return Explorer("A number, bit by bit", draw, figsize=BITS_SIZE, **controls)


def _write_row(axes: Axes, row: float, texts: tuple, name: str, rest: str = "normal") -> None:
    for at, text, weight in zip(COLUMN_ENDS, texts, (name, rest, rest), strict=True):
        axes.text(at, row, text, weight=weight, size=9.5, ha="right", va="center")


def _draw_cells(axes: Axes, rows: list[tuple[str, str, str]]) -> None:
    """One cell per bit, dark for a 1. All exponents end in one column, where mantissas begin."""
    cells = []  # bit, colour of its field, (column, row)
    for row, fields in enumerate(rows):
        for (name, (color, start, width)), bits in zip(FIELDS.items(), fields, strict=True):
            first = start + (width - len(bits) if name == "exponent" else 0)
            cells += [(bit, color, (first + index, row)) for index, bit in enumerate(bits)]
    digits, edges, corners = map(np.array, zip(*cells, strict=True))
    is_one = digits == "1"
    faces = np.where(is_one[:, None], edges, 0.84 + 0.16 * edges)
    squares = corners[:, None] + [(0.05, -0.36), (0.95, -0.36), (0.95, 0.36), (0.05, 0.36)]
    axes.add_collection(PolyCollection(squares, facecolors=faces, edgecolors=edges))
    for digit, ink, shown in (("$0$", INK, ~is_one), ("$1$", "white", is_one)):
        middles = corners[shown] + (0.5, 0)  # drawn as markers: quicker than a hundred texts
        axes.scatter(*middles.T, marker=digit, s=36, color=ink, linewidths=0, zorder=3)


def _formula(number: float, format: NumberFormat) -> str:
    """The kept value as its three fields say it."""
    parts = formats.take_apart(number, format)
    sign = "−" if parts.sign else "+"
    if parts.kind == "infinity":
        return f"{format.name}:  {sign}infinity (exponent all ones, mantissa all zeros)"
    product = f"{sign} {parts.significand:.12g} × {_power(parts.exponent)} = {parts.value:.12g}"
    note = "   (subnormal: no leading 1)" if parts.kind == "subnormal" else ""
    return f"{format.name}:  {product}{note}"


def _power(exponent: int) -> str:
    return "2" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _error_text(number: float, kept: float) -> str:
    """The relative error in percent, or a word where there is none or it has no end."""
    if kept == number or math.isinf(kept):
        return "exact" if kept == number else "infinite"
    percent = 100 * abs(kept - number) / abs(number)
    return np.format_float_positional(percent, precision=2, fractional=False, trim="-") + " %"


def _bits_reading(number: float, format: NumberFormat) -> str:
    kept = formats.round_to(number, format).item()
    if kept == number:
        return f"{number:.9g} is kept exactly in {format.name}."
    text = f"{number:.9g} becomes {kept:.11g} in {format.name}"
    if abs(number) > format.largest:
        return f"{text}, whose largest value is {format.largest:.6g}."
    if kept == 0:
        return f"{text}, whose smallest value above 0 is {format.smallest_subnormal:.6g}."
    text += ", one of its subnormals" if abs(kept) < format.smallest_normal else ""
    return f"{text}, an error of {_error_text(number, kept)}."


def draw_spacing(figure: Figure, magnitude: float, format_name: str) -> str:
    """The range of every format and the distance between its neighbours, one format in colour."""
    chosen = find_format(format_name)
    figure.set_layout_engine("none")
    ranges = figure.add_axes((0.09, 0.145, 0.25, 0.73), title="Range (striped: subnormal)")
    stairs = figure.add_axes((0.445, 0.145, 0.49, 0.73), title="Distance to the next value")
    x, y = math.log2(magnitude), int(math.log2(formats.spacing_at(magnitude, chosen)))
    for axes, fill in ((ranges, _draw_ranges), (stairs, _draw_stairs)):
        fill(axes, chosen)
        axes.axvline(x, color=INK, linewidth=1.2, marker="", linestyle="-")
    if magnitude <= chosen.largest:
        stairs.plot(x, y, marker="o", markersize=8, color=CHOSEN, zorder=4, clip_on=False)
    text = f" {_power(y)} apart " if magnitude <= chosen.largest else " too large "
    stairs.text(x, -61, text, size=10, weight="bold", ha="left" if x < 6 else "right")
    return _spacing_reading(magnitude, chosen)


def spacing_explorer() -> Explorer:
    """How far apart the values of a format lie at a magnitude of the learner's choice."""
    magnitude = FloatLogSlider(1.0, base=2, min=LOW, max=HIGH, step=0.5, description="magnitude")
    names = Dropdown(options=list(FORMATS), value="bf16", description="format")
    controls = {"magnitude": magnitude, "format_name": names}
    return Explorer("Range and spacing", draw_spacing, figsize=SPACING_SIZE, **controls)


def _draw_ranges(axes: Axes, chosen: NumberFormat) -> None:
    """One bar per format from its smallest to its largest value; the subnormals striped."""
    solid, striped = [], []
    for row, format in enumerate(FORMATS.values()):
        ends = (format.smallest_subnormal, format.smallest_normal, format.largest)
        first, normal, last = ((math.log2(end), row) for end in ends)
        solid, striped = [*solid, (normal, last)], [*striped, (first, normal)]
    look = {"colors": [CHOSEN if each is chosen else GREY for each in FORMATS.values()], "lw": 15}
    axes.add_collection(LineCollection(solid, **look))
    axes.add_collection(LineCollection(striped, **look, linestyles=[(0, (0.1, 0.1))]))
    axes.set_yticks(range(len(FORMATS)), list(FORMATS))
    axes.set_xticks((-126, 0, 127), map(_power, (-126, 0, 127)))
    axes.set(xlim=(-152, 131), ylim=(-0.6, len(FORMATS) - 0.4), xlabel="magnitude")


def _draw_stairs(axes: Axes, chosen: NumberFormat) -> None:
    """Distance against magnitude: a step up at each power of two, flat where subnormals are."""
    stairs = {format: _corners(format) for format in FORMATS.values()}
    axes.add_collection(LineCollection(stairs.values(), colors=GREY, linewidths=1.1))
    axes.add_collection(LineCollection([stairs[chosen]], colors=CHOSEN, linewidths=2.6, zorder=3))
    for format, corners in stairs.items():
        y = corners[0][1] + {"bf16": 1, "tf32": -1}.get(format.name, 0)  # the names would touch
        weight = "bold" if format is chosen else "normal"
        axes.text(LOW - 0.5, y, format.name, size=9, weight=weight, ha="right", va="center")
    axes.yaxis.tick_right()
    axes.set_yticks((-60, -40, -20, 0), map(_power, (-60, -40, -20, 0)))
    axes.set_xticks((-24, -12, 0, 12), map(_power, (-24, -12, 0, 12)))
    axes.set(xlim=(LOW, HIGH), ylim=(-63, 16), xlabel="magnitude")


def _corners(format: NumberFormat) -> list[tuple[float, float]]:
    """The corners of one staircase, both coordinates as powers of two."""
    end = min(HIGH, math.log2(format.largest))
    start = torch.arange(LOW, math.ceil(end))
    height = formats.spacing_at(start.double().exp2(), format).log2()
    steps = zip(start.tolist(), height.tolist(), strict=True)
    return [(x, y) for step, y in steps for x in (step, min(step + 1, end))]


def _spacing_reading(magnitude: float, format: NumberFormat) -> str:
    name, spacing = format.name, formats.spacing_at(magnitude, format).item()
    if magnitude > format.largest:
        return f"{magnitude:.6g} is beyond {name}, whose largest value is {format.largest:.6g}."
    if formats.round_to(magnitude, format) == 0:
        return f"{magnitude:.6g} becomes 0 in {name}, whose smallest value is {spacing:.6g}."
    kind = "subnormal " if magnitude < format.smallest_normal else ""
    text = f"Around {magnitude:.6g}, {kind}{name} values lie {spacing:.6g} apart"
    return f"{text}, so adding less than {spacing / 2:.6g} changes nothing."
