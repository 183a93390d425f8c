"""ZeRO's pictures: every value where it belongs, nothing told by colour alone."""

import numpy as np
import pytest

from utils.experiments.zero_timeline import StepBytes
from utils.peers.table import ComparisonRow
from utils.plots import new_figure, png_of
from utils.techniques.flat import FlatLayout
from utils.zero_bill import BF16, held_per_parameter
from utils.zero_plots import draw_layout, draw_stages, draw_step, draw_throughput


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_layout_has_a_box_for_each_value_in_the_row_of_its_rank():
    figure = new_figure(5, 2)
    axes = figure.subplots()
    draw_layout(axes, FlatLayout(("weight", "bias"), ((2, 2), (1,)), world_size=3))
    boxes = [(round(box.get_y() + box.get_height() / 2), box.get_x()) for box in axes.patches]
    assert boxes == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [text.get_text() for text in axes.texts] == list("012345")
    assert legend_of(figure) == ["weight", "bias", "padding"]
    looks = [(box.get_facecolor(), box.get_hatch()) for box in axes.patches]
    assert looks[0] == looks[3] != looks[4] != looks[5]
    assert len({hatch for _, hatch in looks}) == 3


def test_a_layout_without_padding_does_not_name_it():
    figure = new_figure(5, 2)
    draw_layout(figure.subplots(), FlatLayout(("weight",), ((2, 2),), world_size=2))
    assert legend_of(figure) == ["weight"]


def rows_of(*held):
    return [ComparisonRow(str(place), held={"all": each}) for place, each in enumerate(held)]


def test_stages_are_lines_by_formula_and_dots_by_count():
    figure = new_figure(6, 3)
    axes = figure.subplots()
    draw_stages(axes, {2: rows_of(16, 11, 9, 8), 4: rows_of(16, 7, 6, 4)}, BF16, most=8)
    lines = axes.get_lines()
    names = [line.get_label() for line in lines[::2]]
    assert names == ["data parallel", "stage 1", "stage 2", "stage 3"]
    for stage, line in enumerate(lines[::2]):
        expected = [held_per_parameter(stage, n, BF16).total for n in (1, 2, 4, 8)]
        assert list(line.get_xdata()) == [1, 2, 4, 8] and list(line.get_ydata()) == expected
    assert list(lines[3].get_xdata()) == [2, 4] and list(lines[3].get_ydata()) == [11, 7]
    assert len({line.get_marker() for line in lines[1::2]}) == 4


def test_a_step_is_drawn_per_parameter_with_its_phases_named():
    figure = new_figure(8, 3)
    step = StepBytes(np.array([0, 1, 2.5]), np.array([40, 40, 20]), np.array([0, 10, 0]), 10)
    draw_step(figure, {"stage 1": step, "stage 3": step})
    weights, gradients = figure.axes
    assert [list(line.get_ydata()) for line in weights.get_lines()[:2]] == [[4, 4, 2]] * 2
    assert list(gradients.get_lines()[0].get_ydata()) == [0, 1, 0]
    assert weights.get_ylim()[1] > 4  # the top line is not cut
    names = [label.get_text() for label in weights.get_xticklabels()]
    assert names == ["forward", "backward", "update"]
    assert legend_of(figure) == ["stage 1", "stage 3"]


@pytest.fixture
def throughput():
    figure = new_figure(6, 4)
    draw_throughput(figure.subplots(), {1: 10.0, 4: 20.0}, {0: 2, 1: 3}, {0: 12.0, 1: 15.0})
    return figure


def test_throughput_has_a_point_for_each_stage_at_the_batch_that_fits(throughput):
    points = {
        line.get_label(): (line.get_xdata()[0], line.get_ydata()[0])
        for line in throughput.axes[0].get_lines()
        if line.get_linestyle() == "None"
    }
    assert points == {"data parallel: 2 fit": (2, 12.0), "stage 1: 3 fit": (3, 15.0)}
    assert legend_of(throughput)[0] == "data parallel, memory no limit"


def test_pictures_are_the_same_every_time(throughput):
    assert png_of(throughput) == png_of(throughput)
