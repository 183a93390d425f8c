"""Pictures of ZeRO: a flat layout cut into shards, bytes by stage and ranks, bytes during a step.

Each function draws on axes or a figure that it is given (`utils.plots.new_figure`) and takes plain
data: the layouts, formulas and measurements come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from utils.experiments.zero_timeline import PHASES, StepBytes
from utils.peers.table import ComparisonRow
from utils.plot_axes import phases_axis
from utils.plots import MARKERS, OKABE_ITO, label_line_ends, log2_axis
from utils.techniques.flat import FlatLayout
from utils.zero_bill import FP32, STAGES, Parts, held_per_parameter

HATCHES = ("", "//", "..", "xx", "\\\\")


def draw_layout(axes: Axes, layout: FlatLayout) -> None:
    """Every value of a flat tensor as a box, coloured by parameter; rank r's shard in row r.

    For layouts of some dozen values.
    """
    owners = [number for number, size in enumerate(layout.sizes) for _ in range(size)]
    owners += [-1] * (layout.padded_values - layout.num_values)
    for place, owner in enumerate(owners):
        row, column = divmod(place, layout.shard_values)
        axes.barh(row, 0.94, left=column, height=0.8, **_look(owner))
        axes.text(column + 0.47, row, str(place), ha="center", va="center", fontsize=8,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    axes.set_yticks(range(layout.world_size), [f"rank {r}" for r in range(layout.world_size)])
    axes.set(ylim=(layout.world_size - 0.4, -0.6), xlim=(-0.1, layout.shard_values), xticks=[])
    axes.grid(False)
    named = [Patch(label=name, **_look(i)) for i, name in enumerate(layout.names)]
    if -1 in owners:
        named.append(Patch(label="padding", **_look(-1)))
    axes.figure.legend(handles=named, loc="outside lower center", ncols=len(named))


def draw_stages(
    axes: Axes, counted: Mapping[int, Sequence[ComparisonRow]], parts: Parts = FP32, most: int = 64
) -> None:
    """Formula lines of all stages over the number of ranks, in bytes per parameter.

    `counted` are rows of stages 0, 1, ... by number of ranks: a dot each.
    """
    ranks = [2**power for power in range(most.bit_length())]
    for stage, colour, marker in zip(STAGES, OKABE_ITO, MARKERS, strict=False):
        line = [held_per_parameter(stage, n, parts).total for n in ranks]
        name = f"stage {stage}" if stage else "data parallel"
        axes.plot(ranks, line, marker="", color=colour, label=name)
        dots = {n: rows[stage].held_per_parameter for n, rows in counted.items()}
        axes.plot(
            list(dots), list(dots.values()), linestyle="", marker=marker, markersize=9,
            color=colour, markeredgecolor="black", label="_measured",
        )  # fmt: skip
    log2_axis(axes, "x")
    axes.set(xlabel="ranks", ylabel="bytes per parameter", ylim=(0, 1.06 * parts.total))
    label_line_ends(axes)


def draw_step(figure: Figure, steps: Mapping[str, StepBytes]) -> None:
    """Weights on the left, gradients on the right, in bytes per parameter; a line a stage."""
    pair = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(pair, ("weights", "gradients"), strict=True):
        for (name, step), width in zip(steps.items(), (5.0, 2.6, 1.4), strict=False):
            values = getattr(step, kind) / step.num_parameters
            axes.plot(step.places, values, marker="", label=name, drawstyle="steps-post",
                      linewidth=width)  # fmt: skip
        phases_axis(axes, PHASES)
        axes.set_title(kind.capitalize())
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    pair[0].set_ylabel("bytes per parameter")
    lines = pair[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=len(steps))


def draw_throughput(
    axes: Axes, curve: Mapping[int, float], fit: Mapping[int, int], rates: Mapping[int, float]
) -> None:
    """Sequences a second over sequences on each rank.

    `curve`: data parallelism at any batch; `fit` and `rates`: each stage's batch, and rate there.
    """
    axes.plot(list(curve), list(curve.values()), color=OKABE_ITO[6], linestyle=":", marker="x",
              label="data parallel, memory no limit")  # fmt: skip
    for (stage, batch), colour, marker in zip(fit.items(), OKABE_ITO, MARKERS, strict=False):
        name = f"stage {stage}: {batch} fit" if stage else f"data parallel: {batch} fit"
        axes.axvline(batch, color=colour, linewidth=0.8, linestyle="--")
        axes.plot([batch], [rates[stage]], linestyle="", marker=marker, markersize=10,
                  color=colour, markeredgecolor="black", label=name)  # fmt: skip
    axes.set(xlabel="sequences on each rank", ylabel="sequences a second")
    axes.set_ylim(0, 1.12 * max(*curve.values(), *rates.values()))
    axes.set_xlim(0, None)
    axes.figure.legend(loc="outside lower center", ncols=2)


def _look(owner: int) -> dict[str, str]:
    if owner < 0:
        return {"facecolor": "white", "edgecolor": "black", "hatch": "////"}
    return {
        "facecolor": OKABE_ITO[owner % len(OKABE_ITO)],
        "edgecolor": "white",
        "hatch": HATCHES[owner % len(HATCHES)],
    }
