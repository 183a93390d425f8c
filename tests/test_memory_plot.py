"""Memory timelines: the right heights at the right events, peaks named, nothing clipped."""

import io

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.image import imread
from torch import nn

from utils import plots
from utils.memory import MemoryMeter
from utils.memory_plot import plot_segments, plot_timeline, plot_totals
from utils.memory_report import CATEGORIES, MIB
from utils.plot_style import LINE_STYLES


def report_of(num_layers, width=512):
    """A step of linear layers, with marks before its backward and at its end."""
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(num_layers)])
    x = torch.ones(2 * width, width)
    with MemoryMeter(model) as meter:
        loss = model(x).sum()
        meter.mark("backward")
        loss.backward()
        meter.mark("end")
    return meter.report()


@pytest.fixture(scope="module")
def reports():
    return {"short": report_of(2), "long": report_of(6)}


def picture(figure):
    return imread(io.BytesIO(plots.png_of(figure)), format="png")


def lines_called(axes, name):
    return [line for line in axes.get_lines() if line.get_label() == name]


def test_totals_are_drawn_event_by_event_each_in_its_own_look(reports):
    axes = plots.new_figure().subplots()
    plot_totals(axes, reports)
    looks = set()
    for index, (name, report) in enumerate(reports.items()):
        (line,) = lines_called(axes, name)
        shown = report.total[report.num_held_events :] / MIB
        assert line.get_ydata() == pytest.approx(shown)
        assert line.get_xdata()[0] == 0
        assert (line.get_color(), line.get_drawstyle()) == (plots.OKABE_ITO[index], "steps-post")
        looks.add((line.get_color(), str(line._dash_pattern)))
    assert len(looks) == len({style for _, style in looks}) == len(reports) <= len(LINE_STYLES)


def test_peaks_and_marks_stand_where_they_happened(reports):
    axes = plots.new_figure().subplots()
    plot_totals(axes, reports)
    for peak, report in zip(lines_called(axes, "_peak"), reports.values(), strict=True):
        event = int(report.total.argmax()) - report.num_held_events
        assert peak.get_xydata().tolist() == [[event, report.peak_bytes / MIB]]
    moments = iter(lines_called(axes, "_moment"))
    for report in reports.values():
        for mark, _ in report.marks:
            (x,), (y,) = next(moments).get_data()
            held = sum(report.at_mark(mark).values())
            assert y == held / MIB == report.total[x + report.num_held_events] / MIB
    assert not list(moments)
    texts = [text.get_text() for text in axes.texts]
    assert sorted(texts) == sorted(
        [f"{report.peak_bytes / MIB:.1f} MiB" for report in reports.values()]
        + ["backward", "end"] * 2
        + list(reports)
    )


def test_texts_take_their_lines_colour_and_lie_inside_the_picture(reports):
    figure = plots.new_figure()
    axes = figure.subplots()
    plot_totals(axes, reports)
    pixels = picture(figure)
    assert (pixels[0, 0] == 1).all()
    assert (pixels[:, -1] == 1).all()
    ends = {text.get_text(): text for text in axes.texts if text.get_text() in reports}
    for index, name in enumerate(reports):
        expected = plots.text_color(plots.OKABE_ITO[index])
        assert to_hex(ends[name].get_color()) == to_hex(expected)
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.x1 <= pixels.shape[1] and 0 <= box.y0 and box.y1 <= pixels.shape[0]


def test_totals_need_a_report():
    with pytest.raises(ValueError, match="at least one report"):
        plot_totals(plots.new_figure().subplots(), {})


def test_the_stacked_timeline_adds_up_to_the_total(reports):
    report = reports["long"]
    figure = plots.new_figure()
    axes = figure.subplots()
    plot_timeline(axes, report)
    top = max(path.vertices[:, 1].max() for c in axes.collections for path in c.get_paths())
    assert top == pytest.approx(report.peak_bytes / MIB)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CATEGORIES)
    words = [text.get_text() for text in axes.texts]
    assert f"peak {report.peak_bytes / MIB:.1f} MiB" in words
    assert {"forward", "backward"} <= set(words)


def test_segments_show_prediction_and_meter_apart():
    axes = plots.new_figure().subplots()
    plot_segments(axes, {1: 900, 2: 500, 3: 600}, {2: 500, 3: 700}, held_bytes=100)
    line, dots = axes.get_lines()
    assert line.get_xydata().tolist() == [[1, 800], [2, 400], [3, 500]]
    assert dots.get_xydata().tolist() == [[2, 400], [3, 600]]
    assert (line.get_marker(), dots.get_linestyle()) == ("", "None")
    assert dots.get_marker() != ""
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["predicted", "by the meter"]
