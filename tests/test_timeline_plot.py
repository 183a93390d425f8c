"""Timelines: the bars stand where the spans say."""

import pytest

from utils.plots import new_figure, png_of
from utils.timeline_plot import KINDS, Span, add_kind_legend, draw_timeline, draw_timelines

SPANS = [
    Span("rank 0 compute", "forward", 0.0, 0.010),
    Span("rank 0 compute", "backward", 0.010, 0.030, "2"),
    Span("rank 0 network", "communication", 0.020, 0.045),
]


def test_bars_are_the_spans_in_milliseconds():
    axes = new_figure().subplots()
    draw_timeline(axes, SPANS)
    bars = [(round(bar.get_x()), round(bar.get_width())) for bar in axes.patches]
    assert bars == [(0, 10), (10, 20), (20, 25)]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "rank 0 compute", "rank 0 network"]  # fmt: skip
    assert axes.get_xlim() == (0, 45)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first lane is on top


def test_lanes_and_end_can_be_fixed_to_compare_pictures():
    axes = new_figure().subplots()
    draw_timeline(axes, SPANS[:1], end_s=0.1, lanes=["a", "rank 0 compute"])
    assert axes.get_xlim() == (0, 100)
    assert axes.patches[0].get_y() + axes.patches[0].get_height() / 2 == 1


def test_kinds_differ_without_colour_and_the_legend_names_those_that_occur():
    figure = new_figure()
    axes = figure.subplots()
    draw_timeline(axes, [Span("x", kind, i, i + 1) for i, kind in enumerate(KINDS)])
    looks = {(bar.get_hatch(), bar.get_facecolor()) for bar in axes.patches}
    assert len(looks) == len(KINDS)
    add_kind_legend(axes, SPANS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "forward", "backward", "communication"]  # fmt: skip
    assert png_of(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("spans", [[], [Span("x", "sleeping", 0, 1)]])
def test_nothing_to_draw_and_unknown_kinds_are_refused(spans):
    with pytest.raises(ValueError, match="A timeline needs spans"):
        draw_timeline(new_figure().subplots(), spans)


def test_several_timelines_share_one_time_axis_and_one_legend():
    figure = new_figure()
    draw_timelines(figure, {"fast": SPANS[:1], "slow": SPANS})
    fast, slow = figure.get_axes()
    assert fast.get_xlim() == slow.get_xlim() == (0, 45)
    assert (fast.get_title(loc="left"), slow.get_title(loc="left")) == ("fast", "slow")
    assert len(figure.legends) == 1 and len(figure.legends[0].get_texts()) == 3
