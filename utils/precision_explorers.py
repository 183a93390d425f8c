"""Explorers of lesson 03: a loss scale on real gradients, and the levels O0 to O3 as they ran.

Both show the learner's own numbers: the gradients of the model that the lesson trained, and the
loss curves of the runs that it made. So every reading marks them as measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import ipywidgets as widgets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from utils.explorer import Explorer
from utils.explorers import PALE
from utils.gradient_histogram import ExponentCounts, draw_gradient_histogram
from utils.measured import measured
from utils.plots import OKABE_ITO
from utils.techniques.formats import FORMATS, NumberFormat, round_to

LOW_FORMATS = ("fp16", "bf16", "fp8 e5m2", "fp8 e4m3")
LOG2_SCALES = range(-8, 41)
MAX_VALUES = 4000  # enough for shares, few enough for a smooth slider


def scale_explorer(counts: ExponentCounts) -> Explorer:
    """Move a loss scale over a histogram of gradients."""
    return Explorer(
        "A loss scale moves every gradient",
        lambda figure, log2_scale: draw_gradient_histogram(figure, counts, 2.0**log2_scale),
        figsize=(6.4, 3.6),
        log2_scale=widgets.IntSlider(value=12, min=0, max=36, description="scale = 2 to the"),
    )


@dataclass(frozen=True)
class LevelRun:
    """One training run at one level: its losses, and what it holds between steps."""

    losses: Sequence[float]
    bytes_per_parameter: float


def shares_at(values: Tensor, format: NumberFormat, scale: float) -> tuple[float, float]:
    """(lost, overflowed): shares of the nonzero values that become 0, or exceed the largest."""
    nonzero = values[values != 0]
    scaled = nonzero.double() * scale
    kept = round_to(scaled, format)
    lost = (kept == 0).double().mean().item()
    overflowed = (scaled.abs() > format.largest).double().mean().item()
    return lost, overflowed


def draw_level(
    figure: Figure,
    log2_scale: int,
    level: str,
    format_name: str,
    runs: Mapping[str, LevelRun],
    gradients: Tensor,
) -> str:
    """Left: what the format loses at each scale. Right: the loss curve of the chosen level."""
    shares, curves = figure.subplots(1, 2)
    format = FORMATS[format_name]
    lost, overflowed = _draw_shares(shares, gradients, format, log2_scale)
    for name, run in runs.items():
        chosen = name == level
        colour, order = (OKABE_ITO[0], 3) if chosen else (PALE, 2)
        curves.plot(run.losses, color=colour, zorder=order, marker="", label=name)
    curves.set(title=f"Loss of {level}", xlabel="step", ylabel="nats per byte")
    run = runs[level]
    final = measured(run.losses[-1])
    return (
        f"At a scale of 2^{log2_scale}, {format_name} loses {measured(f'{lost:.1%}')} of the "
        f"gradients and overflows {measured(f'{overflowed:.1%}')}; {level} holds "
        f"{run.bytes_per_parameter:.0f} bytes per parameter and ended at {final}."
    )


def _draw_shares(
    axes: Axes, gradients: Tensor, format: NumberFormat, log2_scale: int
) -> tuple[float, float]:
    """Plot both shares over all scales and return those at the chosen one."""
    scales = [power for power in LOG2_SCALES if power % 4 == 0 or power == log2_scale]
    both = {power: shares_at(gradients, format, 2.0**power) for power in scales}
    for index, name in enumerate(("lost", "overflows")):
        axes.plot(scales, [100 * both[power][index] for power in scales], label=name)
    axes.axvline(log2_scale, color="black", linewidth=0.8, marker="")
    axes.set(title=f"Gradients in {format.name}", xlabel="log2 of the scale", ylabel="%")
    axes.set_ylim(-3, 103)
    axes.legend(loc="center")
    return both[log2_scale]


def level_explorer(runs: Mapping[str, LevelRun], gradients: Tensor) -> Explorer:
    """Choose level, format and scale; see underflow, bytes and the loss curve."""
    step = max(1, gradients.numel() // MAX_VALUES)
    draw = partial(draw_level, runs=runs, gradients=gradients.flatten()[::step].clone())
    with torch.no_grad():
        return Explorer(
            "Levels, formats, scales",
            draw,
            figsize=(8.4, 3.2),
            log2_scale=widgets.IntSlider(value=16, min=-8, max=40, description="scale = 2 to the"),
            level=widgets.Dropdown(options=list(runs), value="O2", description="level"),
            format_name=widgets.Dropdown(
                options=list(LOW_FORMATS), value="fp16", description="format"
            ),
        )
