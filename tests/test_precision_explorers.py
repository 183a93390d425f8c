"""Lesson 03's explorers, on gradients made by hand."""

import pytest
import torch

from tests.explorer_controls import assert_every_control_counts
from utils.gradient_histogram import count_exponents
from utils.precision_explorers import LevelRun, level_explorer, scale_explorer, shares_at
from utils.techniques.formats import BF16, FP16

GRADIENTS = torch.tensor([2.0**-30, 2.0**-30, 2.0**-10, 0.0, 2.0**10])
RUNS = {"O0": LevelRun([5.0, 3.0], 12.0), "O2": LevelRun([5.0, 3.5], 14.0)}


def test_shares_by_hand():
    assert shares_at(GRADIENTS, FP16, 1.0) == (0.5, 0.0)
    assert shares_at(GRADIENTS, FP16, 2.0**8) == (0.0, 0.25)
    assert shares_at(GRADIENTS, BF16, 1.0) == (0.0, 0.0)


def test_the_scale_explorer_follows_its_slider():
    explorer = scale_explorer(count_exponents(GRADIENTS))
    before = explorer.reading
    explorer.controls["log2_scale"].value = 0
    assert explorer.error is None and explorer.reading != before
    assert "50.00 %" in explorer.reading


def test_every_control_of_the_level_explorer_changes_the_reading():
    explorer = level_explorer(RUNS, GRADIENTS)
    assert "holds 14 bytes" in explorer.reading
    assert_every_control_counts(explorer, level=("O0", "O2"), format_name=("fp16", "fp8 e4m3"))


@pytest.mark.parametrize("level", RUNS)
def test_the_chosen_run_is_the_one_in_colour(level):
    explorer = level_explorer(RUNS, GRADIENTS)
    explorer.controls["level"].value = level
    curves = explorer.figure.axes[1]
    coloured = [line.get_label() for line in curves.lines if line.get_zorder() == 3]
    assert coloured == [level]
    assert explorer.reading.count("\u23f1") == 6
