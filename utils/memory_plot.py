"""A memory timeline as a stacked picture: what is alive, and why, at each event of a step."""

import numpy as np
from matplotlib.axes import Axes

from utils.memory_report import CATEGORIES, MIB, MemoryReport
from utils.plots import OKABE_ITO

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
