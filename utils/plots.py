"""Figures that every reader can read: the course's look, and a sentence with every figure.

How it works: `new_figure` makes a figure in the course's look (`utils.plot_style`) without pyplot,
whose global state is not safe in a widget's callback thread; `show` displays it as a PNG and prints
its reading, the figure in one sentence. `stacked_bar` and `label_line_ends` draw what many lessons
need; the axes in bytes, dollars and powers of two come from `utils.plot_axes`.

Left out: SVG (its random ids break the strict comparison) and interactive canvases.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from utils.measured import publish
from utils.plot_axes import bytes_axis as bytes_axis
from utils.plot_axes import bytes_text as bytes_text
from utils.plot_axes import log2_axis as log2_axis
from utils.plot_axes import usd_axis as usd_axis
from utils.plot_axes import usd_text as usd_text
from utils.plot_style import MARKERS as MARKERS
from utils.plot_style import OKABE_ITO, contrast_with_white, text_color

_MAX_MARKERS = 25
_LABEL_GAP_POINTS = 12.0  # what a line of 9 point text needs


def new_figure(width: float = 6.4, height: float = 3.2, dpi: int = 100) -> Figure:
    """Return an empty figure of `width` x `height` inches; fill it with `figure.subplots()`."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")


def png_of(figure: Figure) -> bytes:
    """Return the figure as PNG bytes; the same figure always gives the same bytes.

    A line of many points keeps a marker about every tenth of the axes: all of them would hide it.
    """
    for axes in figure.get_axes():
        for index, line in enumerate(axes.get_lines()):
            if len(line.get_xdata()) > _MAX_MARKERS and line.get_markevery() is None:
                line.set_markevery((0.03 * (index % 3), 0.1))
    figure.set_facecolor("white")
    is_agg = isinstance(figure.canvas, FigureCanvasAgg)
    canvas = figure.canvas if is_agg else FigureCanvasAgg(figure)
    canvas.draw()  # savefig would draw twice, once only to find the layout
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def show(figure: Figure, title: str, reading: str) -> None:
    """Display a finished figure, then print "Reading: ..." below it.

    The reading is one sentence that says what to see; it is also the picture's alternative text.
    """
    sentence = checked_reading(reading)
    png = base64.b64encode(png_of(figure)).decode("ascii")
    publish({"image/png": png, "text/plain": f"[figure] {title}"}, {"image/png": {"alt": sentence}})
    print(f"Reading: {sentence}")


def image_html(png: bytes, alternative_text: str) -> str:
    """Return an <img> with the PNG inside; JupyterLab shows an alternative text only here."""
    data = base64.b64encode(png).decode("ascii")
    alt = html.escape(alternative_text, quote=True)
    return f'<img style="max-width: 100%" alt="{alt}" src="data:image/png;base64,{data}">'


def checked_reading(reading: str) -> str:
    """Return the reading without outer spaces; ValueError unless it is a line with a full stop."""
    text = reading.strip() if isinstance(reading, str) else ""
    if not text.endswith(".") or len(text.splitlines()) != 1 or not text.strip(". "):
        raise ValueError(
            "A reading is one sentence on one line that ends with a full stop and says what the "
            f"figure shows, but this one is {reading!r}."
        )
    return text


def label_line_ends(axes: Axes) -> None:
    """Write each line's label at its last point instead of a legend; call it after all plots."""
    axes.margins(x=0.02)
    axes.get_ylim()  # settles the limits, on which the distances below depend
    ends = []
    for line in axes.get_lines():
        points = reversed(line.get_xydata())
        last = next((point for point in points if all(map(math.isfinite, point))), None)
        if last is not None and not line.get_label().startswith("_"):
            height = axes.transData.transform(last)[1] * 72 / axes.figure.dpi
            ends.append((height, last, line))
    ends.sort(key=lambda end: end[0])
    for (height, point, line), shown_at in zip(
        ends, _spread([end[0] for end in ends], _LABEL_GAP_POINTS), strict=True
    ):
        axes.annotate(
            line.get_label(),
            point,
            xytext=(7, shown_at - height),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=text_color(line.get_color()),
            annotation_clip=False,
        )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights as little as possible (least squares) until all are `gap` apart."""
    groups: list[list[float]] = []  # labels that touch move together, about their own middle
    for index, height in enumerate(heights):
        groups.append([height - index * gap])
        while len(groups) > 1 and fmean(groups[-2]) >= fmean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    flat = [fmean(group) for group in groups for _ in group]
    return [height + index * gap for index, height in enumerate(flat)]


def stacked_bar(
    axes: Axes,
    categories: Sequence[str],
    series: Mapping[str, Sequence[float]],
    text: Callable[[float], str] = "{:,.3g}".format,
) -> None:
    """Draw one horizontal bar per category, made of the series in order, with its total at the end.

    `text` writes a number in words (e.g. `bytes_text`). A part that is wide enough carries its
    number; the legend below the axes names the parts in their order, so use it once per figure.
    """
    wrong = [name for name, values in series.items() if len(values) != len(categories)]
    if wrong or not series or not categories:
        raise ValueError(
            f"stacked_bar needs one value per category ({len(categories)} of them) in each series; "
            f"look at {wrong or 'the empty series or categories'}."
        )
    totals = [sum(values) for values in zip(*series.values(), strict=True)]
    lefts = [0.0] * len(categories)
    for index, (name, values) in enumerate(series.items()):
        color = OKABE_ITO[index % len(OKABE_ITO)]
        bars = axes.barh(
            list(categories), values, left=lefts, label=name, color=color, edgecolor="white"
        )
        labels = [text(v) if v > 0.12 * max(totals) else "" for v in values]
        ink = "white" if contrast_with_white(color) >= 4.5 else "black"
        axes.bar_label(bars, labels, label_type="center", color=ink, fontsize=9)
        lefts = [left + value for left, value in zip(lefts, values, strict=True)]
    axes.bar_label(bars, [f"  {text(total)}" for total in totals], fontsize=9, fontweight="bold")
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.grid(False, axis="y")
    axes.figure.legend(loc="outside lower left", ncols=min(4, len(series)))
