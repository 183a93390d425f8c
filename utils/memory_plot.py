"""Memory timelines as pictures: one step by category, or the totals of several steps together."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from utils.memory_report import CATEGORIES, MIB, MemoryReport
from utils.plot_style import LINE_STYLES
from utils.plots import OKABE_ITO, bytes_axis, label_line_ends, text_color

HATCHES = ("", "//", "\\\\", "..", "xx")  # a second cue beside colour


def plot_timeline(axes: Axes, report: MemoryReport, first_phase: str = "forward") -> None:
    """Stack the categories over the step's events; the report's marks divide it into phases.

    What was alive before the first operation stands at event 0. `first_phase` names the part
    before the first mark.
    """
    start = report.num_held_events
    layers = [report.timeline[name][start:] / MIB for name in CATEGORIES]
    events = np.arange(len(layers[0]))
    parts = axes.stackplot(events, layers, labels=CATEGORIES, colors=OKABE_ITO, step="post")
    for part, hatch in zip(parts, HATCHES, strict=True):
        part.set(hatch=hatch, edgecolor="white", linewidth=0.0)
    axes.set(xlabel="event (a tensor came or went)", ylabel="live MiB")
    axes.set(xlim=(0, max(1, len(events) - 1)), ylim=(0, 1.25 * report.peak_bytes / MIB))
    _name_phases(axes, [(first_phase, start), *report.marks], start, len(events))
    _point_to_peak(axes, report, start, len(events))
    axes.figure.legend(loc="outside lower center", ncols=len(CATEGORIES), fontsize=8)


def _name_phases(
    axes: Axes, phases: list[tuple[str, int]], start: int, num_events: int
) -> None:
    """Write each phase's name in the middle of its part, and a dashed line where it begins."""
    edges = [max(0, position - start) for _, position in phases] + [num_events]
    height = axes.get_ylim()[1]
    for (name, _), left, right in zip(phases, edges, edges[1:], strict=False):
        if left:
            axes.axvline(left, color="black", linestyle="--", linewidth=0.8)
        axes.text((left + right) / 2, 0.97 * height, name, ha="center", va="top", fontsize=10)


def _point_to_peak(axes: Axes, report: MemoryReport, start: int, num_events: int) -> None:
    peak, top_mib = int(report.total.argmax()) - start, report.peak_bytes / MIB
    axes.plot([peak], [top_mib], marker="v", color="black", markersize=7, clip_on=False)
    is_late = peak > 0.7 * num_events
    axes.annotate(
        f"peak {top_mib:.1f} MiB",
        (peak, top_mib),
        xytext=(-10 if is_late else 10, 0),
        textcoords="offset points",
        ha="right" if is_late else "left",
        va="center",
        fontsize=9,
    )


def plot_totals(axes: Axes, reports: Mapping[str, MemoryReport]) -> None:
    """All live bytes of several steps over their events, as lines that carry their names.

    A triangle and a number stand at each peak; a hollow circle and a dotted line at each of a
    report's marks, with its name at the top, one row for each report. A line starts with what was
    alive before the first operation.
    """
    if not reports:
        raise ValueError("There is nothing to draw: give at least one report, by name.")
    axes.set_ylim(0, 1.3 * max(report.peak_bytes for report in reports.values()) / MIB)
    looks = zip(OKABE_ITO, LINE_STYLES, strict=True)
    for row, ((name, report), (colour, style)) in enumerate(
        zip(reports.items(), looks, strict=False)
    ):
        total = report.total[report.num_held_events :] / MIB
        look = {"color": colour, "linestyle": style, "marker": "", "drawstyle": "steps-post"}
        axes.plot(total, label=name, **look)
        for mark, position in report.marks:
            event = max(0, position - report.num_held_events - 1)
            _name_moment(axes, colour, mark, event, total[event], row)
        _write_peak(axes, colour, int(total.argmax()), total.max())
    axes.set(xlabel="event (a tensor came or went)", ylabel="live MiB")
    label_line_ends(axes)


def plot_segments(
    axes: Axes, predicted: Mapping[int, int], measured: Mapping[int, int], held_bytes: int
) -> None:
    """Peaks above `held_bytes` by number of segments: a predicted line, and dots of the meter."""
    numbers = list(predicted)
    line = [predicted[k] - held_bytes for k in numbers]
    axes.plot(numbers, line, marker="", drawstyle="steps-mid", label="predicted")
    dots = [peak - held_bytes for peak in measured.values()]
    axes.plot(list(measured), dots, linestyle="", label="by the meter")
    axes.set(xlabel="number of segments", ylabel="peak above what is held", yscale="log")
    bytes_axis(axes)
    axes.legend()


def _name_moment(
    axes: Axes, colour: str, name: str, event: int, height: float, row: int
) -> None:
    axes.vlines(event, height, axes.get_ylim()[1], color=colour, linestyle=":", linewidth=0.8)
    axes.plot([event], [height], marker="o", mfc="white", color=colour, label="_moment")
    axes.annotate(
        name,
        (event, 0.95 - 0.07 * row),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        fontsize=8,
        color=text_color(colour),
    )


def _write_peak(axes: Axes, colour: str, event: int, top_mib: float) -> None:
    axes.plot([event], [top_mib], marker="v", color=colour, markersize=8, label="_peak")
    axes.annotate(
        f"{top_mib:.1f} MiB",
        (event, top_mib),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=text_color(colour),
    )
