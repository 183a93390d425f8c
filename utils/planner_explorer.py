"""The planner's explorer: model, chip, GPUs, price and tokens -> recipes with dollars and bytes.

How it works: `draw_plan` plans in the chip's low precision (fp32 costs several times as much) and
draws the first seven recipes: methods, with and without checkpointing. On the left stand dollars
and days of those that work, the cheapest on top, and what is wrong with the others; on the right
the bytes of one GPU by category, with the chip's usable memory as a line. Where the table lacks a
price, the figure says so and which prices of the chip there are; a chip without any is not offered.

Left out: everything that the planner leaves out; its advice, which plans a dozen times.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.config import PRESETS
from utils.explorer import Explorer
from utils.hardware import load_chips
from utils.planner import Plan, PlannedRecipe, PlanRequest, plan
from utils.planning.hour_price import hour_price
from utils.planning.options import usable_bytes
from utils.planning.request import OTHER_SOFTWARE
from utils.planning.texts import GB, dollars, duration, gigabytes
from utils.plots import OKABE_ITO
from utils.sharded_bytes import ShardedBytes
from utils.simulate.llama import load_llama_shapes

GPUS = tuple(2**power for power in range(11))
BILLIONS = (1, 2.5, 10, 40, 160, 300, 1000, 2000, 15_000)
PRICES = ("on-demand", "spot", "marketplace", "bought")
DOLLARS = OKABE_ITO[0]
MOST_SHOWN = 7
CUT_AT = 2.5  # bars of bytes end at so many times the chip's memory


def draw_plan(
    figure: Figure, model: str, chip: str, num_gpus: int, price: str, billion_tokens: float
) -> str:
    """Ranked recipes with dollars and days, and the bytes of one GPU beside its memory."""
    kinds = kinds_of_price(chip)
    if price not in kinds:
        return _draw_no_price(figure, chip, price, kinds)
    request = PlanRequest(
        model, billion_tokens * 1e9, chip, num_gpus, price, only_low_precision=True
    )
    found = plan(request)
    draw_found(figure, found)
    return _reading(found)


def kinds_of_price(chip: str) -> list[str]:
    """The kinds of price with which an hour of the chip can be paid."""
    kinds = []
    for kind in PRICES:
        with suppress(ValueError):  # raised for a price that the table lacks
            hour_price(PlanRequest("gpt2-124m", 1e9, chip, price=kind))
            kinds.append(kind)
    return kinds


def _draw_no_price(figure: Figure, chip: str, price: str, kinds: Sequence[str]) -> str:
    words = f"The table has no {price} price of {chip}; choose one that it has: {', '.join(kinds)}."
    figure.text(0.5, 0.5, words, ha="center", va="center")
    return words


def draw_found(figure: Figure, found: Plan) -> None:
    """The two panels of a plan: also the static figure of a lesson."""
    shown = [*found.feasible, *found.refused][:MOST_SHOWN]
    dollars, sizes = figure.subplots(1, 2, sharey=True, width_ratios=(5, 4))
    names = [each.recipe.name for each in shown]
    _draw_dollars(dollars, names, shown)
    _draw_bytes(sizes, names, shown, usable_bytes(found.request), found.request.chip)
    figure.legend(*sizes.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _draw_dollars(axes: Axes, names: list[str], shown: Sequence[PlannedRecipe]) -> None:
    usd = [0.0 if each.problem else each.usd for each in shown]
    axes.barh(names, usd, color=DOLLARS)
    top = max(usd) or 1.0
    for place, each in enumerate(shown):
        if each.problem:
            over = f"{gigabytes(each.over_bytes)} GB too many"
            text = f" out: {over if each.is_too_large else each.problem}"
            _text(axes, 0, place, text, color="#444444")
        else:
            text = f" {dollars(each.usd)}, {duration(each.days)}"
            _text(axes, each.usd, place, text)
    axes.set(title="Dollars and days", xlim=(0, 1.7 * top))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=4)
    if not max(usd):  # fractions of a dollar would be rounded to "0 0 1 2"
        axes.set_xticks([0])
    axes.invert_yaxis()
    axes.grid(False, axis="y")


def _draw_bytes(
    axes: Axes, names: list[str], shown: Sequence[PlannedRecipe], room: float, chip: str
) -> None:
    lefts = [0.0] * len(shown)
    for colour, category in enumerate(ShardedBytes().by_category()):
        gb = [each.peak.by_category()[category] / GB for each in shown]
        axes.barh(names, gb, left=lefts, label=category, color=OKABE_ITO[colour])
        lefts = [left + size for left, size in zip(lefts, gb, strict=True)]
    end = CUT_AT * room / GB
    for place, total in enumerate(lefts):
        at = min(total, end)
        more = f" {total:,.0f}" if total <= end else f"{total:,.0f} "
        if total <= end:
            _text(axes, at, place, more)
        else:  # on the bar that is cut off there
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            _text(axes, at, place, more, ha="right", bbox=box)
    axes.axvline(
        room / GB, color="black", linestyle="--", marker="", label=f"usable of one {chip}"
    )
    axes.set(title="GB on one GPU, at the peak", xlim=(0, min(end, 1.25 * max(*lefts, room / GB))))
    axes.grid(False, axis="y")


def _text(axes: Axes, x: float, place: int, words: str, **options: Any) -> None:
    """A label at a bar; laying out the figure need not wait for it."""
    axes.text(x, place, words, va="center", fontsize=8, **options).set_in_layout(False)


def _reading(found: Plan) -> str:
    request = found.request
    where = f"On {request.num_gpus:,} x {request.chip} at {dollars(found.hour.usd)} an hour"
    counts = f"{len(found.refused)} of {len(found.feasible) + len(found.refused)} recipes are out"
    near = f", the nearest {found.refused[0].problem}" if found.refused else ""
    return f"{where}: {found.verdict[:-1]}; {counts}{near}."


def planner_explorer(model: str = "gpt2-1.5b", chip: str = "H100 SXM") -> Explorer:
    """Plan by moving: what to use for a model, its tokens, GPUs and a price."""
    models = [*PRESETS, *(shape.model for shape in load_llama_shapes())]
    chips = [
        each.name
        for each in load_chips()
        if each.use == "trains" and each.memory_gb and each.bandwidth_tb_s
        and not each.name.startswith(OTHER_SOFTWARE) and kinds_of_price(each.name)
    ]
    return Explorer(
        "What to use for my model, my GPUs, my budget",
        draw_plan,
        figsize=(9.0, 3.6),
        model=widgets.Dropdown(options=models, value=model, description="model"),
        chip=widgets.Dropdown(options=chips, value=chip, description="chip"),
        num_gpus=widgets.SelectionSlider(
            options=[(f"{count:,}", count) for count in GPUS], value=8, description="GPUs"
        ),
        price=widgets.Dropdown(options=PRICES, description="price"),
        billion_tokens=widgets.SelectionSlider(
            options=[(f"{count:,g}", count) for count in BILLIONS], value=40,
            description="billion tokens",
        ),
    )  # fmt: skip
