"""Pictures of YaFSDP: who is in which buffer, memory with and without churn, the published table.

Each function draws on axes or a figure that it is given (`utils.plots.new_figure`) and takes plain
data: timelines, measurements and predictions come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.experiments.churn import PHASES, Churn
from utils.plot_axes import phases_axis
from utils.plot_style import LINE_COLORS
from utils.plots import MARKERS, OKABE_ITO, log2_axis
from utils.simulate.hazards import Access
from utils.simulate.timeline import COMPUTE, Timeline
from utils.simulate.timeline import Span as TaskSpan
from utils.simulate.yafsdp_published import RunPrediction
from utils.timeline_plot import Span
from utils.yafsdp_table import ARTICLE_PERCENT, PublishedRun

KINDS = {"gather": "gather", "forward": "forward", "backward": "backward"}


def buffer_spans(timeline: Timeline, accesses: Iterable[Access]) -> list[Span]:
    """Compute, messages, and below them each buffer while something fills or reads it."""
    spans = [
        _span("computes" if span.task.stream == COMPUTE else "sends", span.task.name, span)
        for span in timeline.spans
    ]
    spans.sort(key=lambda span: span.lane)
    # Weights above gradients, each in the order of its numbers.
    ordered = sorted(accesses, key=lambda access: (access.buffer[0] != "w", access.buffer))
    return spans + [_span(each.buffer, each.task, timeline.span(each.task)) for each in ordered]


def draw_churn(figure: Figure, steps: Mapping[str, Churn]) -> None:
    """Whole units on the left, everything on the right, in MB over one step; a line a system."""
    whole, total = figure.subplots(1, 2)
    for axes, kind in ((whole, "whole"), (total, "total")):
        for (name, step), style in zip(steps.items(), ("-", "--", ":"), strict=False):
            axes.plot(step.places, getattr(step, kind) / 1e6, marker="", linestyle=style,
                      label=name, drawstyle="steps-post")  # fmt: skip
        phases_axis(axes, PHASES)
        axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    whole.set(title="Whole units: weights and gradients", ylabel="MB")
    total.set(title="Everything")
    lines = whole.get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=len(steps))


def draw_gains(axes: Axes, rows: Sequence[PublishedRun]) -> None:
    """Published time saved over tokens per GPU, a marker a model; the article's range in grey."""
    low, high = ARTICLE_PERCENT
    axes.axhspan(low, high, color="#dddddd", zorder=0, label="10-25 %")
    models = dict.fromkeys(row.model for row in rows)
    for model, colour, marker in zip(models, LINE_COLORS, MARKERS, strict=False):
        mine = [row for row in rows if row.model == model]
        axes.plot(
            [row.sequence_length for row in mine], [row.speedup_percent for row in mine],
            linestyle="", marker=marker, markersize=8, color=colour, label=model,
        )  # fmt: skip
    log2_axis(axes, "x")
    axes.set(xlabel="tokens per GPU in a step", ylabel="time saved, %", ylim=(0, 30))
    axes.margins(x=0.1)
    axes.figure.legend(loc="outside right upper")


def draw_predictions(figure: Figure, predictions: Sequence[RunPrediction]) -> None:
    """Predicted over published: seconds of both systems, and the time saved; hollow if fitted."""
    seconds, saved = figure.subplots(1, 2)
    for place, name in enumerate(("YaFSDP", "FSDP")):
        times = [
            (each.run.yafsdp_s, each.yafsdp.total_s) if name == "YaFSDP"
            else (each.run.fsdp_s, each.fsdp.total_s)
            for each in predictions
        ]  # fmt: skip
        _dots(seconds, times, predictions, place, name)
    percents = [(each.run.speedup_percent, each.speedup_percent) for each in predictions]
    _dots(saved, percents, predictions, 2, "time saved")
    seconds.set(title="Seconds of a step", xscale="log", yscale="log", ylabel="predicted")
    saved.set(title="Time saved, %")
    for axes, limits in ((seconds, (0.6, 14)), (saved, (0, 29))):
        axes.plot(limits, limits, color="black", marker="", linewidth=0.8, label="_equal")
        axes.set(xlabel="published", xlim=limits, ylim=limits, aspect="equal")
    for axis in (seconds.xaxis, seconds.yaxis):
        axis.set_ticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        axis.set_ticks([], minor=True)
    figure.legend(loc="outside lower center", ncols=3)


def _dots(
    axes: Axes, pairs: Sequence[tuple[float, float]], predictions: Sequence[RunPrediction],
    place: int, name: str,
) -> None:  # fmt: skip
    """One hollow marker for each calibration row, a full one for the others."""
    for is_fitted, words in ((False, "held out"), (True, "fitted")):
        points = [
            pair for pair, each in zip(pairs, predictions, strict=True)
            if each.is_calibration == is_fitted
        ]  # fmt: skip
        axes.plot(
            *zip(*points, strict=True), linestyle="", marker=MARKERS[place],
            color=OKABE_ITO[place], markerfacecolor="none" if is_fitted else OKABE_ITO[place],
            markersize=8, label=f"{name}, {words}",
        )  # fmt: skip


def _span(lane: str, task: str, span: TaskSpan) -> Span:
    """A bar with the number of the layer that the task belongs to."""
    kind = next((kind for start, kind in KINDS.items() if task.startswith(start)), "reduce")
    return Span(lane, kind, span.start_s, span.end_s, task.split()[-1])
