"""The lessons' explorers: what they draw and say, computed again by hand."""

import pytest

from tests.explorer_controls import assert_every_control_counts
from utils.explorers import (
    activation_explorer,
    batch_explorer,
    dollars_explorer,
    draw_activations,
    draw_dollars,
    draw_recipe,
    recipe_explorer,
)
from utils.plots import new_figure

PEAKS = {1: 1000, 2: 2000, 4: 4000}
RATES = {1: 10.0, 2: 15.0, 4: 16.0}


def test_seven_billion_parameters_need_126_gb_with_fp32_gradients():
    reading = draw_recipe(new_figure(), "bf16 weights, fp32 gradients and master, Adam", 7)
    assert "18 bytes times 7 billion is 117 GiB" in reading
    assert reading.endswith("it fits H200.")


def test_seventy_billion_fit_nowhere():
    assert "none of the three" in draw_recipe(new_figure(), "fp32, Adam", 70)


def test_explicit_attention_costs_more_the_longer_the_text():
    short = draw_activations(new_figure(), "gpt2-124m", 1, 7)
    long = draw_activations(new_figure(), "gpt2-124m", 1, 13)
    ratios = [float(r.split(" tokens, ")[1].split(" times")[0]) for r in (short, long)]
    assert 1.0 < ratios[0] < 1.5 < 5 < ratios[1]


def test_dollars_follow_6nd():
    figure = new_figure()
    reading = draw_dollars(figure, 4.0, 40, 140)
    hours = 6 * 7e9 * 140e9 / (989e12 * 0.4) / 3600
    assert f"take {hours:,.0f} GPU hours" in reading
    (line,) = figure.axes[0].lines
    assert line.get_ydata()[2] == pytest.approx(4.0 * hours)


def test_the_batch_explorer_shows_the_learners_own_numbers():
    explorer = batch_explorer(PEAKS, RATES)
    explorer.controls["batch_size"].value = 4
    assert "16.0 tokens/s" in explorer.reading or "16 tokens/s" in explorer.reading
    assert "4,000 bytes" in explorer.reading
    heights = [bar.get_height() for bar in explorer.figure.axes[1].patches]
    assert heights == [1000, 2000, 4000]


@pytest.mark.parametrize("make", [recipe_explorer, activation_explorer, dollars_explorer])
def test_every_control_moves_to_both_ends_and_changes_the_reading(make):
    explorer = make()
    assert_every_control_counts(explorer)
