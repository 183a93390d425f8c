"""Lesson 05's explorer, on runs made by hand."""

import re

import pytest

from utils.keep_explorers import PlanRun, budget_explorer, draw_kept, pareto_front, run_within
from utils.measured import MARK
from utils.plots import new_figure

PLAIN = PlanRun((0, 1, 2, 3), 1000, 1000, 300, 0.010, 0.011)
HALF = PlanRun((0, (1,), 2, 3), 600, 596, 310, 0.012, 0.013)
DEEP = PlanRun((((0, 1), 2), 3), 250, 249, 400, 0.020, 0.019)
POOR = PlanRun(((0, 1, 2), 3), 650, 640, 390, 0.019, 0.018)
RUNS = (PLAIN, HALF, POOR, DEEP)
NAMES = ("embed", "attend 1", "feed 1", "loss")


def test_the_front_leaves_out_what_another_run_beats():
    assert pareto_front(RUNS) == [DEEP, HALF, PLAIN]
    assert pareto_front([PLAIN, PLAIN]) == [PLAIN]


@pytest.mark.parametrize(
    "budget, expected",
    [(1000, PLAIN), (999, HALF), (640, HALF), (596, HALF), (595, DEEP), (249, DEEP)],
)
def test_the_cheapest_run_that_fits_is_taken(budget, expected):
    assert run_within(RUNS, budget) is expected


def test_a_budget_below_every_run_is_refused_with_the_least():
    with pytest.raises(ValueError, match="smallest peak is 249 bytes"):
        run_within(RUNS, 248)


def test_the_reading_by_hand():
    reading = draw_kept(new_figure(), 60, RUNS, NAMES)
    plain = re.sub(f"{MARK} (.*?) {MARK}", r"<\1>", reading)
    assert plain == (
        "Within 60 % (600 bytes), 3 of 4 layers keep what they save, 1 runs twice; the peak was "
        "predicted as 600 and is 596 bytes, the step as <12.0 ms> and took <13.0 ms>."
    )
    assert "1 runs twice, 2 run 3 times" in draw_kept(new_figure(), 25, RUNS, NAMES)
    assert "4 of 4 layers keep what they save; the" in draw_kept(new_figure(), 100, RUNS, NAMES)


def test_every_layer_has_a_bar_whose_text_says_what_its_colour_says():
    figure = new_figure()
    draw_kept(figure, 25, RUNS, NAMES)
    bars, cloud = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [3, 3, 2, 1]
    assert [text.get_text() for text in bars.texts] == ["3x", "3x", "2x", "kept"]
    assert len({bar.get_facecolor() for bar in bars.patches}) == 3
    assert [label.get_text() for label in bars.get_xticklabels()] == list(NAMES)
    lines = {line.get_label(): line for line in cloud.lines}
    assert list(lines["chosen"].get_xdata()) == [DEEP.peak_bytes]
    assert list(lines["front"].get_xdata()) == [249, 596, 1000]
    assert list(lines["a run"].get_ydata()) == pytest.approx([11, 13, 18, 19])
    assert set(lines["budget"].get_xdata()) == {250}


def test_the_slider_moves_to_both_ends_and_shows_its_run():
    explorer = budget_explorer(RUNS, NAMES)
    slider = explorer.controls["budget_percent"]
    assert (slider.min, slider.max) == (25, 100)
    readings = []
    for percent in (slider.min, 60, slider.max):
        slider.value = percent
        assert explorer.error is None, explorer.error
        readings.append(explorer.reading)
    assert len(set(readings)) == 3
    assert explorer.reading.startswith("Within 100 %")
    assert explorer.png.startswith(b"\x89PNG")


def test_one_run_alone_can_be_shown():
    assert "100 %" in budget_explorer([PLAIN], NAMES).reading


@pytest.mark.parametrize("runs, names", [((), NAMES), (RUNS, NAMES[:3])])
def test_runs_and_names_must_fit(runs, names):
    with pytest.raises(ValueError, match="one for each name"):
        budget_explorer(runs, names)
