"""The planner's explorer: what it draws and says, against the plan; and its controls."""

import pytest

from utils.planner import PlanRequest, plan
from utils.planner_explorer import MOST_SHOWN, draw_plan, kinds_of_price, planner_explorer
from utils.plots import new_figure

SETTING = {
    "model": "llama2-70b-shape", "chip": "A100 80GB", "num_gpus": 256, "price": "on-demand",
    "billion_tokens": 40,
}  # fmt: skip


def draw(**changes):
    figure = new_figure(10.0, 4.4)
    return figure, draw_plan(figure, **{**SETTING, **changes})


def found(**changes):
    setting = {**SETTING, **changes}
    return plan(
        PlanRequest(
            setting["model"], setting["billion_tokens"] * 1e9, setting["chip"],
            setting["num_gpus"], setting["price"], only_low_precision=True,
        )
    )  # fmt: skip


def test_the_bars_are_dollars_of_those_that_work_and_reasons_of_the_others():
    figure, _ = draw()
    expected = found()
    dollars = figure.axes[0]
    names = [label.get_text() for label in dollars.get_yticklabels()]
    shown = [*expected.feasible, *expected.refused][:MOST_SHOWN]
    assert names == [each.recipe.name for each in shown]
    widths = [bar.get_width() for bar in dollars.containers[0]]
    assert widths == [0 if each.problem else pytest.approx(each.usd) for each in shown]
    texts = [text.get_text() for text in dollars.texts]
    assert texts[0].startswith(f" ${expected.best.usd:,.0f}, ")
    over = (shown[-1].peak.total - 74.4e9) / 1e9
    assert texts[-1] == f" out: {over:,.1f} GB too many"


def test_the_bytes_add_up_to_the_peak_and_the_memory_is_a_line():
    figure, _ = draw()
    sizes = figure.axes[1]
    best = found().best
    assert sum(group[0].get_width() for group in sizes.containers) == pytest.approx(
        best.peak.total / 1e9
    )
    (line,) = sizes.lines
    assert list(line.get_xdata()) == pytest.approx([74.4, 74.4])


def test_the_reading_is_the_verdict_and_one_sentence():
    _, reading = draw()
    expected = found()
    assert expected.verdict[:-1] in reading
    out = len(expected.refused)
    assert f"{out} of {out + len(expected.feasible)} recipes are out, the nearest needs " in reading
    assert reading.count(". ") == 0


def test_nothing_that_fits_is_drawn_too():
    figure, reading = draw(num_gpus=1)
    assert all(bar.get_width() == 0 for bar in figure.axes[0].containers[0])
    assert list(figure.axes[0].get_xticks()) == [0]
    assert "the smallest number on which it does is" in reading


def test_every_end_of_every_control_works():
    explorer = planner_explorer()
    for name, control in explorer.controls.items():
        start = control.value
        for value in (control.options[0], control.options[-1]):
            control.value = value[1] if isinstance(value, tuple) else value
            assert explorer.error is None, name
        control.value = start
    assert explorer.png[:4] == b"\x89PNG"


def test_every_chip_offered_has_a_price_and_one_without_is_not_offered():
    chips = planner_explorer().controls["chip"].options
    assert all(map(kinds_of_price, chips))
    assert "T4" not in chips and not kinds_of_price("T4")


def test_a_missing_price_is_said_in_the_figure_with_those_that_there_are():
    explorer = planner_explorer(chip="A100 80GB")
    explorer.controls["price"].value = "spot"
    words = "The table has no spot price of A100 80GB; choose one that it has: "
    assert explorer.error is None
    assert explorer.reading == words + "on-demand, marketplace, bought."
    assert [text.get_text() for text in explorer.figure.texts] == [explorer.reading]
    explorer.controls["price"].value = "bought"
    assert "On 8 x A100 80GB at " in explorer.reading
