"""The pictures and table rows of lesson 09."""

from itertools import pairwise

import numpy as np
import pytest

from utils.experiments.buffer_turns import five_layers
from utils.experiments.churn import Churn
from utils.plots import new_figure, png_of
from utils.simulate import held_out, predict_yafsdp, simulate
from utils.timeline_plot import KINDS
from utils.yafsdp_plots import buffer_spans, draw_churn, draw_gains, draw_predictions
from utils.yafsdp_report import (
    FIT_HEADERS,
    LENGTH_HEADERS,
    PUBLISHED_HEADERS,
    fit_rows,
    length_rows,
    other_fits,
    published_rows,
)
from utils.yafsdp_table import load_yafsdp_published


def test_every_buffer_has_a_lane_and_a_bar_for_each_use():
    tasks, accesses = five_layers()
    timeline = simulate(tasks)
    spans = buffer_spans(timeline, accesses)
    lanes = list(dict.fromkeys(span.lane for span in spans))
    assert lanes == ["computes", "sends", "weights 0", "weights 1", "gradients 0", "gradients 1"]
    assert len(spans) == len(tasks) + len(accesses)
    assert {span.kind for span in spans} <= set(KINDS)
    first = next(span for span in spans if span.lane == "weights 1")
    gather = timeline.span("gather forward 1")
    assert (first.kind, first.label) == ("gather", "1")
    assert (first.start_s, first.end_s) == (gather.start_s, gather.end_s)


def test_bars_of_one_buffer_overlap_only_where_the_schedule_does():
    tasks, accesses = five_layers()
    spans = buffer_spans(simulate(tasks), accesses)
    for lane in ("weights 0", "weights 1"):
        mine = sorted((s for s in spans if s.lane == lane), key=lambda span: span.start_s)
        assert all(a.end_s <= b.start_s + 1e-12 for a, b in pairwise(mine))


def test_churn_is_drawn_with_a_line_a_system_in_both_parts():
    step = Churn(np.array([0.0, 1.5, 2.9]), np.array([0, 2e6, 0]), np.array([1e6, 3e6, 1e6]),
                 1, 2_000_000, 3, 10, 20)  # fmt: skip
    figure = new_figure(9, 3)
    draw_churn(figure, {"FSDP": step, "YaFSDP": step})
    for axes, top in zip(figure.axes, (2.0, 3.0), strict=True):
        lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
        assert [line.get_label() for line in lines] == ["FSDP", "YaFSDP"]
        assert lines[0].get_linestyle() != lines[1].get_linestyle()
        assert max(lines[0].get_ydata()) == top and axes.get_ylim()[1] > top
    assert png_of(figure).startswith(b"\x89PNG")


def test_all_published_rows_are_points():
    figure, rows = new_figure(), load_yafsdp_published()
    axes = figure.subplots()
    draw_gains(axes, rows)
    points = {
        (x, y)
        for line in axes.get_lines()
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    assert points == {(row.sequence_length, row.speedup_percent) for row in rows}
    markers = [line.get_marker() for line in axes.get_lines()]
    assert len(set(markers)) == len(markers) == len({row.model for row in rows})
    assert png_of(figure).startswith(b"\x89PNG")


def test_predictions_are_hollow_where_they_were_fitted():
    figure, predictions = new_figure(), predict_yafsdp()
    draw_predictions(figure, predictions)
    seconds, saved = figure.axes
    for axes, numbers in ((seconds, [12, 4, 12, 4]), (saved, [12, 4])):
        dots = [line for line in axes.get_lines() if line.get_label() != "_equal"]
        assert [len(line.get_xdata()) for line in dots] == numbers
        hollow = [line.get_markerfacecolor() == "none" for line in dots]
        assert hollow == [False, True] * (len(numbers) // 2)
        low, high = axes.get_xlim()
        for line in dots:
            values = [*line.get_xdata(), *line.get_ydata()]
            assert low <= min(values) and max(values) <= high
    assert png_of(figure).startswith(b"\x89PNG")


def test_published_rows_give_each_percentage_under_its_name():
    runs = load_yafsdp_published()
    last = dict(zip(PUBLISHED_HEADERS, published_rows(runs)[-1], strict=True))
    assert (last["model"], last["GPUs"], last["tokens per GPU"]) == ("Llama 3 70B", 256, 2048)
    assert (last["FSDP, s"], last["YaFSDP, s"]) == ("9.76", "7.17")
    assert last["time saved"] == "26.6 %" and last["more throughput"] == "36.1 %"
    assert last["fewer dollars"] == "26.5 %"


def test_lengths_with_a_single_row_are_left_out():
    rows = length_rows(held_out(predict_yafsdp()))
    assert [row[:2] for row in rows] == [[2048, 6], [4096, 5]]
    assert all(len(row) == len(LENGTH_HEADERS) for row in rows)


def test_other_fits_begin_with_the_one_that_was_written_down():
    choices = other_fits()
    assert next(iter(choices)) == "the corners"
    assert {len(runs) for runs in choices.values()} == {4}
    (row,) = fit_rows({"the corners": choices["the corners"]})
    assert row == ["the corners", 4, "5.8%", "0.89"] and len(row) == len(FIT_HEADERS)


@pytest.mark.parametrize("name", ["the first four"])
def test_a_fit_to_one_model_is_worse(name):
    (row,) = fit_rows({name: other_fits()[name]})
    assert float(row[2].rstrip("%")) > 10 and float(row[3]) < 0.8
