"""The ladder in one figure: bytes, dollars and loss of every rung, side by side.

How it works: three panels share the rungs as rows, the first rung on top. A bar has what is held
all the time in front and the rest of the peak behind it; dollars have a line between the quartiles
of the rounds. `draw_ladder` returns the reading, whose measured parts stand between marks.

Left out: the table (`utils.ladder_report`).
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.experiments.ladder_results import RungResult
from utils.ladder_best import cheapest, lowest, names_of
from utils.measured import measured
from utils.plots import MARKERS, OKABE_ITO, usd_text

HELD, PEAK, DOLLARS, LOSS = OKABE_ITO[0], OKABE_ITO[5], OKABE_ITO[1], OKABE_ITO[2]


def draw_ladder(
    figure: Figure, results: Sequence[RungResult], usd_per_device_hour: float
) -> str:
    """Draw the rungs that ran; returns the figure's reading. Raises ValueError if none ran."""
    cheapest(results)  # says so if none ran
    ran = [each for each in results if each.timing]
    bytes_axes, usd_axes, loss_axes = figure.subplots(1, 3, sharey=True)
    _draw_bytes(bytes_axes, ran)
    _draw_dollars(usd_axes, ran, usd_per_device_hour)
    _draw_losses(loss_axes, ran)
    bytes_axes.set_yticks(range(len(ran)), [each.rung.name for each in ran])
    bytes_axes.invert_yaxis()
    figure.legend(loc="outside lower left", ncols=2)
    return _reading(ran)


def _reading(ran: Sequence[RungResult]) -> str:
    small, cheap = lowest(ran), cheapest(ran)
    often, seldom = (pick(ran, key=lambda each: each.num_updates) for pick in (max, min))
    saved = 1 - small[0].peak_bytes / ran[0].peak_bytes
    return (
        f"The lowest peak is that of {names_of(small)}, {saved:.0%} below {ran[0].rung.name}; the "
        f"cheapest tokens are those of {measured(names_of(cheap))}; and the same tokens in fewer, "
        f"larger steps leave a loss of {measured(f'{seldom.loss:.2f}')} instead of "
        f"{measured(f'{often.loss:.2f}')}."
    )


def _draw_bytes(axes: Axes, ran: Sequence[RungResult]) -> None:
    places = range(len(ran))
    kept = [each.held_bytes - each.held.get("gradients", 0) for each in ran]
    peaks = [each.peak_bytes / 1e6 for each in ran]
    bars = axes.barh(places, peaks, color=PEAK, edgecolor="white", hatch="//", label="the peak")
    axes.barh(
        places, [size / 1e6 for size in kept], color=HELD, height=0.5,
        label="weights and optimizer state in it",
    )  # fmt: skip
    axes.bar_label(bars, [f" {peak:,.1f}" for peak in peaks], fontsize=9)
    axes.margins(x=0.2)
    axes.set(title="MB on a rank")
    axes.grid(False, axis="y")


def _draw_dollars(axes: Axes, ran: Sequence[RungResult], usd_per_device_hour: float) -> None:
    usd = [each.usd_per_billion_tokens(usd_per_device_hour) for each in ran]
    ends = [
        [price * quartile / each.step_s for quartile in each.timing.quartiles_s]
        for price, each in zip(usd, ran, strict=True)
    ]
    away = [[price - low for price, (low, _) in zip(usd, ends, strict=True)],
            [high - price for price, (_, high) in zip(usd, ends, strict=True)]]  # fmt: skip
    _draw_dots(axes, usd, [usd_text(price) for price in usd], DOLLARS, MARKERS[1], away)
    axes.set(title="$ per 1e9 tokens", xlim=(0, 1.15 * max(high for _, high in ends)))


def _draw_losses(axes: Axes, ran: Sequence[RungResult]) -> None:
    losses = [each.loss for each in ran]
    _draw_dots(axes, losses, [f"{loss:.2f}" for loss in losses], LOSS, MARKERS[2])
    axes.set(title="Loss in nats, same tokens")


def _draw_dots(
    axes: Axes, values: Sequence[float], texts: Sequence[str], colour: str, marker: str,
    away: Sequence[Sequence[float]] | None = None,
) -> None:  # fmt: skip
    places = range(len(values))
    axes.errorbar(
        values, places, xerr=away, linestyle="", marker=marker, markersize=7, color=colour,
        capsize=3, label="_",
    )  # fmt: skip
    for value, place, text in zip(values, places, texts, strict=True):
        axes.annotate(
            text, (value, place), xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=8,
        )  # fmt: skip
    axes.margins(x=0.25, y=0.12)
