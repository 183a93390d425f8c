"""Figures: white, deterministic, never without a reading, readable units, nothing clipped."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from utils import plots
from utils.plot_style import LINE_COLORS, LINE_STYLES, MARKERS, contrast_with_white, text_color


def line_figure(num_points=200, num_lines=2):
    figure = plots.new_figure()
    axes = figure.subplots()
    for index in range(num_lines):
        axes.plot(np.linspace(0, 1, num_points) * (index + 1), label=f"line {index}")
    axes.set(title="Lines", xlabel="step", ylabel="loss")
    return figure, axes


def pixels(figure):
    return imread(io.BytesIO(plots.png_of(figure)), format="png")


def test_png_has_the_asked_size_is_opaque_white_and_the_same_each_time():
    figure, _ = line_figure()
    picture = pixels(figure)
    assert picture.shape[:2] == (320, 640)
    assert picture.shape[2] == 3  # no alpha channel: opaque
    assert (picture[0, 0] == 1).all()
    assert plots.png_of(figure) == plots.png_of(figure) == plots.png_of(line_figure()[0])


def test_lines_differ_by_colour_marker_and_style():
    _, axes = line_figure(num_lines=8)
    lines = axes.get_lines()
    assert tuple(line.get_color() for line in lines) == LINE_COLORS
    assert tuple(line.get_marker() for line in lines) == MARKERS == plots.MARKERS
    looks = {(line.get_color(), line.get_marker(), str(line._dash_pattern)) for line in lines}
    assert len(looks) == len(LINE_STYLES) == 8


def test_short_lines_keep_all_markers_and_long_ones_a_few():
    for num_points, expected in ((25, None), (26, (0.0, 0.1))):
        figure, axes = line_figure(num_points)
        plots.png_of(figure)
        assert axes.get_lines()[0].get_markevery() == expected


def test_show_prints_a_reading_and_refuses_none(capsys):
    figure, _ = line_figure()
    plots.show(figure, "loss", " The loss falls. ")
    assert capsys.readouterr().out == "[figure] loss\nReading: The loss falls.\n"
    for bad in ("", " . ", "no full stop", "two\nlines.", None):
        with pytest.raises(ValueError, match="one sentence"):
            plots.show(figure, "loss", bad)
    assert capsys.readouterr().out == ""


def test_labels_at_line_ends_stay_apart_and_inside_the_picture():
    figure = plots.new_figure()
    axes = figure.subplots()
    for index in range(6):
        axes.plot([0, 1], [0, 1 + index / 1000], label=f"a rather long label {index}")
    axes.plot([0, 1], [0, 0.2])  # without a label: none is written
    plots.label_line_ends(axes)
    picture = pixels(figure)
    assert (picture[:, -1] == 1).all()
    boxes = [text.get_window_extent() for text in axes.texts]
    heights = [box.y0 for box in boxes]
    assert len(boxes) == 6
    assert heights == sorted(heights)
    assert min(np.diff(heights)) > 12
    assert max(box.x1 for box in boxes) <= 640


def test_spread_moves_as_little_as_possible():
    assert plots._spread([0, 100], 10) == [0, 100]
    assert plots._spread([50, 50], 10) == [45, 55]
    assert plots._spread([0, 49, 50, 51], 10) == [0, 40, 50, 60]


def test_text_colours_are_readable_on_white():
    assert contrast_with_white("white") == pytest.approx(1)
    assert contrast_with_white("black") == pytest.approx(21)
    assert all(contrast_with_white(text_color(color)) >= 4.5 for color in plots.OKABE_ITO)


def test_stacked_bar_ends_at_the_totals_and_writes_the_numbers():
    figure = plots.new_figure()
    axes = figure.subplots()
    plots.stacked_bar(axes, ["SGD", "Adam"], {"weights": [4, 4], "state": [0.1, 8]}, "{:g}".format)
    ends = [patch.get_x() + patch.get_width() for patch in axes.patches]
    assert ends == [4, 4, 4.1, 12]
    assert [text.get_text() for text in axes.texts] == ["4", "4", "", "8", "  4.1", "  12"]
    assert axes.yaxis_inverted()  # the first category is on top
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["weights", "state"]


@pytest.mark.parametrize("series", [{}, {"weights": [1, 2, 3]}])
def test_stacked_bar_refuses_series_of_another_length(series):
    with pytest.raises(ValueError, match="one value per category"):
        plots.stacked_bar(plots.new_figure().subplots(), ["a", "b"], series)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.00 KiB"),
        (1.5 * 2**20, "1.50 MiB"),
        (1023.6 * 2**20, "1,024 MiB"),
        (14 * 2**30, "14.0 GiB"),
        (2**60, "1,024 PiB"),
    ],
)
def test_bytes_in_words(num_bytes, text):
    assert plots.bytes_text(num_bytes) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0"),
        (0.0012, "$0.0012"),
        (0.09, "$0.090"),
        (0.5, "$0.50"),
        (12.3, "$12.30"),
        (12345, "$12,345"),
        (2.41e6, "$2.41 million"),
        (-3e9, "-$3 billion"),
    ],
)
def test_dollars_in_words(usd, text):
    assert plots.usd_text(usd) == text


def tick_texts(axes, which):
    plots.png_of(axes.figure)
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


def test_axes_in_course_units():
    axes = plots.new_figure().subplots()
    axes.plot([1, 2, 4, 8], [0, 2**30, 2 * 2**30, 3 * 2**30])
    plots.bytes_axis(axes)
    plots.log2_axis(axes)
    assert {"0", "1 GiB", "2 GiB", "3 GiB"} <= set(tick_texts(axes, "y"))
    assert {"1", "2", "4", "8"} <= set(tick_texts(axes, "x"))
    axes.set_yscale("log")
    plots.bytes_axis(axes)
    assert all(t.endswith(("bytes", "KiB", "MiB", "GiB")) for t in tick_texts(axes, "y"))
    plots.usd_axis(axes, "x")
    assert "$8.00" in tick_texts(axes, "x")
    with pytest.raises(ValueError, match="choose the axis"):
        plots.bytes_axis(axes, "z")
