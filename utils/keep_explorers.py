"""The explorer of lesson 05: a memory budget, what is kept under it, and what that costs in time.

It shows plans that the learner has run: their peaks by the meter are exact, their seconds measured.
For a budget it takes the run with the fewest FLOPs that fits, and marks it among all runs.

Left out: running anything; a slider that trains would make its reader wait.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.explorer import Explorer
from utils.explorers import PALE
from utils.measured import measured
from utils.plots import OKABE_ITO, bytes_axis, bytes_text
from utils.techniques.segments import Plan, runs_of

KEPT, AGAIN, OFTEN = OKABE_ITO[0], OKABE_ITO[4], OKABE_ITO[1]


@dataclass(frozen=True)
class PlanRun:
    """One plan as it was predicted and as it ran on this machine."""

    plan: Plan
    predicted_peak_bytes: int
    peak_bytes: int
    flops: int  # of the whole step
    predicted_s: float
    seconds: float


def pareto_front(runs: Iterable[PlanRun]) -> list[PlanRun]:
    """The runs that no other one beats in bytes and seconds at once, by rising peak."""
    front: list[PlanRun] = []
    for run in sorted(runs, key=lambda run: (run.peak_bytes, run.seconds)):
        if not front or run.seconds < front[-1].seconds:
            front.append(run)
    return front


def run_within(runs: Sequence[PlanRun], budget_bytes: float) -> PlanRun:
    """Of the runs whose peak fits, the one with the fewest FLOPs.

    Raises ValueError, with the least peak there is, if none fits.
    """
    fitting = [run for run in runs if run.peak_bytes <= budget_bytes]
    if not fitting:
        least_bytes = min(run.peak_bytes for run in runs)
        raise ValueError(
            f"No run stays within {bytes_text(budget_bytes)}; the smallest peak is "
            f"{bytes_text(least_bytes)}."
        )
    return min(fitting, key=lambda run: (run.flops, run.peak_bytes))


def draw_kept(
    figure: Figure, budget_percent: int, runs: Sequence[PlanRun], layer_names: Sequence[str]
) -> str:
    """Left: how often each layer runs. Right: peak against seconds of all runs."""
    budget_bytes = max(run.peak_bytes for run in runs) * budget_percent / 100
    run = run_within(runs, budget_bytes)
    layers, cloud = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_layers(layers, runs_of(run.plan), layer_names)
    _draw_cloud(cloud, runs, run, budget_bytes)
    counts = Counter(runs_of(run.plan).values())
    again = ", ".join(
        f"{count} {'runs' if count == 1 else 'run'} {_times(number)}"
        for number, count in sorted(counts.items())
        if number > 1
    )
    predicted, took = (measured(1000 * s, "ms") for s in (run.predicted_s, run.seconds))
    return (
        f"Within {budget_percent} % ({bytes_text(budget_bytes)}), {counts[1]} of "
        f"{len(layer_names)} layers keep what they save{', ' if again else ''}{again}; the peak "
        f"was predicted as {run.predicted_peak_bytes:,} and is {run.peak_bytes:,} bytes, the step "
        f"as {predicted} and took {took}."
    )


def _draw_layers(axes: Axes, runs: dict[int, int], layer_names: Sequence[str]) -> None:
    """One bar per layer; a number or the word "kept" says what its colour says."""
    numbers = [runs[layer] for layer in range(len(layer_names))]
    colours = [{1: KEPT, 2: AGAIN}.get(number, OFTEN) for number in numbers]
    bars = axes.bar(range(len(numbers)), numbers, color=colours)
    labels = ["kept" if number == 1 else f"{number}x" for number in numbers]
    axes.bar_label(bars, labels, fontsize=8, padding=2)
    axes.set_xticks(range(len(numbers)), layer_names, rotation=60, ha="right", fontsize=8)
    axes.set(title="Runs of each layer", ylabel="forward runs", ylim=(0, 1.15 * max(3, *numbers)))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(False, axis="x")


def _draw_cloud(axes: Axes, runs: Sequence[PlanRun], chosen: PlanRun, budget_bytes: float) -> None:
    front = pareto_front(runs)
    points = [(run.peak_bytes, 1000 * run.seconds) for run in runs]
    axes.plot(*zip(*points, strict=True), color=PALE, linestyle="", marker="o", label="a run")
    axes.plot(
        [run.peak_bytes for run in front], [1000 * run.seconds for run in front],
        color=OKABE_ITO[2], marker="^", label="front",
    )  # fmt: skip
    axes.plot(
        chosen.peak_bytes, 1000 * chosen.seconds, color=OFTEN, linestyle="", marker="D",
        markersize=9, label="chosen",
    )  # fmt: skip
    axes.axvline(budget_bytes, color="black", linestyle="--", marker="", label="budget")
    slowest_s = max(run.seconds for run in runs)
    axes.set(title="All runs", xlabel="peak", ylabel="ms", ylim=(0, 1100 * slowest_s))
    axes.set_xlim(left=0)
    bytes_axis(axes, "x")
    axes.legend(loc="lower left", fontsize=8)


def _times(number: int) -> str:
    return {2: "twice"}.get(number, f"{number} times")


def budget_explorer(runs: Sequence[PlanRun], layer_names: Sequence[str]) -> Explorer:
    """Set a memory budget in percent of the largest peak, and see what is kept.

    Raises ValueError without a run, or if a plan has another number of layers than `layer_names`.
    """
    if not runs or any(len(runs_of(run.plan)) != len(layer_names) for run in runs):
        raise ValueError(
            f"The explorer needs at least one run, and plans of {len(layer_names)} layers, one for "
            "each name."
        )
    peaks = [run.peak_bytes for run in runs]
    least_percent = -(-100 * min(peaks) // max(peaks))
    return Explorer(
        "A memory budget, and what to keep under it",
        partial(draw_kept, runs=runs, layer_names=layer_names),
        figsize=(9.0, 3.4),
        budget_percent=widgets.IntSlider(
            value=max(50, least_percent), min=least_percent, max=100, description="budget in %"
        ),
    )
