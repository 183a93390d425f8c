"""The spread of rental prices drawn: one chip on one day, and the price of useful FLOPs by chip.

How it works: left, what each product with the chip cost on the day on which its prices lay furthest
apart; right, every current price as a point, in dollars per EFLOP, one row a chip.
Left out: prices of no single chip, and those older than a year (utils.prices).
"""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.plots import MARKERS, OKABE_ITO, new_figure, show
from utils.price_per_flop import DaySpread, PricedFlops, price_per_flop, widest_day
from utils.prices import RentalPrice

STYLES = {
    kind: (OKABE_ITO[place], MARKERS[place])
    for place, kind in enumerate(("on-demand", "spot", "marketplace", "reserved", "own"))
}


def draw_price_spread(
    figure: Figure,
    chip: str = "H100 SXM",
    share: float | None = None,
    prices: Iterable[RentalPrice] | None = None,
) -> str:
    """Left: one chip's prices on its widest day. Right: dollars per EFLOP of every chip."""
    one_day, by_flop = figure.subplots(1, 2, width_ratios=(2, 3))
    spread = widest_day(chip)
    _draw_day(one_day, chip, spread)
    priced = price_per_flop(share=share, prices=prices)
    _draw_flops(by_flop, priced)
    figure.legend(loc="outside lower right", ncols=len(STYLES))
    low, high = priced[0], priced[-1]
    return (
        f"On {spread.day} an hour of {chip} cost from ${spread.low:.2f} to ${spread.high:.2f}, "
        f"{spread.ratio:.1f} times as much; at current prices 1e18 useful FLOPs cost from "
        f"${low.usd_per_eflop:.2f} ({low.price.provider}, {low.chip.name}, {low.share_is} share) "
        f"to ${high.usd_per_eflop:.2f} ({high.price.provider}, {high.chip.name}, {high.share_is} "
        "share)."
    )


def show_price_spread(
    chip: str = "H100 SXM",
    share: float | None = None,
    prices: Iterable[RentalPrice] | None = None,
) -> None:
    """Display the spread of prices and its reading."""
    figure = new_figure(8.6, 3.6)
    reading = draw_price_spread(figure, chip, share, prices)
    show(figure, "The spread of rental prices", reading)


def _draw_day(axes: Axes, chip: str, spread: DaySpread) -> None:
    names = [f"{row.provider}\n{row.sku}" for row in spread.rows]
    usd = [row.usd_per_gpu_hour for row in spread.rows]
    bars = axes.barh(range(len(usd)), usd, color=OKABE_ITO[0])
    axes.bar_label(bars, [f" ${price:.2f}" for price in usd], fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlim=(0, 1.3 * max(usd)), title=f"{chip}, {spread.day}", xlabel="$ per GPU-hour")
    axes.invert_yaxis()
    axes.grid(False, axis="y")


def _draw_flops(axes: Axes, priced: tuple[PricedFlops, ...]) -> None:
    """A row per chip, the cheapest first; a point per price, hollow where the share is assumed."""
    names = list(dict.fromkeys(each.chip.name for each in priced))
    for kind, (color, marker) in STYLES.items():
        for is_assumed in (False, True):
            chosen = [
                each for each in priced
                if each.price.kind == kind and (each.share_is == "assumed") == is_assumed
            ]  # fmt: skip
            if chosen:
                label = f"{kind}, assumed share" if is_assumed else kind
                axes.plot(
                    [each.usd_per_eflop for each in chosen],
                    [names.index(each.chip.name) for each in chosen],
                    color=color, marker=marker, linestyle="", label=label,
                    markerfacecolor="white" if is_assumed else color,
                )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set(xlabel="$ per EFLOP", title="Useful FLOPs by chip")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.invert_yaxis()
