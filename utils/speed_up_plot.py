"""The roofline's speed-ups of many chips in one figure, beside what the article claims.

How it works: for each chip of the table three marks on a logarithmic line: the ratio of its peaks,
and what the roofline gives a whole step in 16 bits and under autocast, all over fp32.
Left out: TF32 and FP8, which are in `speed_up_rows` (utils.roofline_tables).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from utils.config import GPTConfig
from utils.hardware import Chip, find_chip
from utils.plots import new_figure, show
from utils.roofline import flops_rate, has_rates, speed_up
from utils.roofline_plots import find_preset
from utils.roofline_readings import speed_up_reading
from utils.roofline_tables import SHOWN_CHIPS

GAINS = ("peak", "bf16", "autocast")
CLAIMED = 6  # the article's "up to", on GPUs


def draw_speed_ups(
    figure: Figure, model: str, batch_size: int, chips: Sequence[str] = SHOWN_CHIPS
) -> str:
    """For each chip the ratio of peaks, and the roofline's speed-up of a step over fp32."""
    axes, config = figure.subplots(), find_preset(model)
    rows = {name: _gains(find_chip(name), config, batch_size) for name in chips}
    labels = ("16-bit peak over fp32 peak", "step: all values in 16 bits", "step: autocast")
    for index, (kind, label) in enumerate(zip(GAINS, labels, strict=True)):
        places = [place for place, gains in enumerate(rows.values()) if gains[kind]]
        values = [math.log10(gains[kind]) for gains in rows.values() if gains[kind]]
        axes.plot(values, places, linestyle="", marker="DosX"[index], label=label, markersize=7)
    axes.axvline(math.log10(CLAIMED), color="black", linewidth=0.9, marker="", linestyle="--")
    axes.text(math.log10(CLAIMED), -1, ' the article: "up to 6x"', fontsize=9, va="center")
    axes.set(yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -1.5))
    ticks = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 30)
    axes.set_xticks([math.log10(tick) for tick in ticks], [f"{tick:g}x" for tick in ticks])
    axes.set_title(f"16 bits over fp32 by the roofline: {model}, {batch_size} sequences")
    figure.legend(loc="outside lower left", ncols=3)
    return speed_up_reading(rows, model)


def show_speed_ups(model: str, batch_size: int, chips: Sequence[str] = SHOWN_CHIPS) -> None:
    """Display the speed-ups of a preset's step on all chips, and their reading."""
    figure = new_figure(8.0, 4.2)
    reading = draw_speed_ups(figure, model, batch_size, chips)
    show(figure, f"Speed-up of {model} by the roofline", reading)


def _gains(chip: Chip, config: GPTConfig, batch_size: int) -> dict[str, float | None]:
    """Speed-ups over fp32; None where the table has no rate."""
    if not has_rates(chip, "fp32"):
        return dict.fromkeys(GAINS)
    gains: dict[str, float | None] = {
        name: speed_up(chip, config, batch_size, name) if has_rates(chip, name) else None
        for name in GAINS[1:]
    }
    return {"peak": flops_rate(chip, "bf16") / flops_rate(chip, "fp32"), **gains}
