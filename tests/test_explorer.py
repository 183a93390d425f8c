"""The Explorer, driven through its controls: no browser and no kernel is needed."""

import base64
import html
import threading

import ipywidgets as widgets
import matplotlib
import pytest

from utils.explorer import Explorer

PNG_START = b"\x89PNG\r\n\x1a\n"


def draw(figure, batch, **_):
    if batch == 13:
        raise ZeroDivisionError("13 <is> unlucky")
    axes = figure.subplots()
    axes.plot([1, 256], [1 / batch, 256 / (256 + batch)])
    axes.set_title(f"batch={batch}")
    return f'With "{batch}" sequences < 257 it is {256 / (256 + batch):.2f}.'


def batch_slider(value=32):
    return widgets.IntSlider(value, 1, 256, description="batch (sequences)")


@pytest.fixture
def explorer():
    return Explorer("Efficiency", draw, batch=batch_slider())


def test_a_slider_moves_figure_reading_and_picture_together(explorer):
    before = explorer.png
    explorer.controls["batch"].value = 64
    assert explorer.params == {"batch": 64}
    assert explorer.figure.axes[0].get_title(loc="left") == "batch=64"
    assert explorer.figure.axes[0].lines[0].get_ydata()[-1] == 256 / 320
    assert explorer.reading == 'With "64" sequences < 257 it is 0.80.'
    assert explorer.png != before
    assert base64.b64encode(explorer.png).decode() in explorer._image.value
    assert f'alt="{html.escape(explorer.reading)}"' in explorer._image.value
    assert html.escape(explorer.reading) in explorer._message.value


def test_the_saved_bundle_works_without_a_kernel(explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(PNG_START)
    assert data["text/plain"] == f"[interactive] Efficiency: {explorer.reading}"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.view.model_id
    assert metadata["image/png"]["alt"] == explorer.reading
    again = Explorer("Efficiency", draw, batch=batch_slider())._repr_mimebundle_()[0]
    assert (again["text/plain"], again["image/png"]) == (data["text/plain"], data["image/png"])


def test_a_setting_that_fails_says_so_and_the_next_one_recovers(explorer):
    figure, png = explorer.figure, explorer.png
    explorer.controls["batch"].value = 13
    assert isinstance(explorer.error, ZeroDivisionError)
    shown = html.unescape(explorer._message.value)
    assert "This setting failed: ZeroDivisionError: 13 <is> unlucky" in shown
    assert "the last setting that worked: batch (sequences) = 32." in shown
    assert "13 <is>" not in explorer._message.value
    assert (explorer.figure, explorer.png) == (figure, png)
    assert '"32"' in explorer.reading
    explorer.controls["batch"].value = 14
    assert explorer.error is None
    assert "failed" not in explorer._message.value
    assert explorer.figure.axes[0].get_title(loc="left") == "batch=14"


def test_a_reading_that_is_no_sentence_is_an_error_in_words(explorer):
    explorer._draw = lambda figure, batch: None
    explorer.controls["batch"].value = 5
    assert "This setting failed: ValueError: A reading is one sentence" in explorer._message.value


def test_a_setting_that_changes_nothing_says_so_by_its_label():
    def draw_pairs(figure, pair):
        figure.subplots().set_title(str(pair // 2))
        return f"Pair {pair // 2}."

    options = [(f"number {value}", value) for value in range(6)]
    control = widgets.SelectionSlider(options=options, value=0, description="which")
    explorer = Explorer("Pairs", draw_pairs, pair=control)
    notes = []
    for value in (1, 2, 3, 3, 0):
        control.value = value
        notes.append(explorer._message.value.partition('<span class="course-same">')[2])
    says = "Now which = number {}, which changes nothing here.</span>"
    assert notes == [says.format(1), "", says.format(3), says.format(3), ""]
    explorer._on_change({"owner": control})  # a second message about a change already drawn
    assert "changes nothing" not in explorer._message.value


def test_a_draw_that_fails_at_once_raises_in_the_cell():
    with pytest.raises(ZeroDivisionError, match="unlucky"):
        Explorer("Efficiency", draw, batch=batch_slider(13))
    with pytest.raises(ValueError, match="one sentence"):
        Explorer("Efficiency", lambda figure, batch: "no stop", batch=batch_slider())


@pytest.mark.parametrize("description", ["", "  "])
def test_a_control_needs_a_description(description):
    with pytest.raises(ValueError, match="'batch' has no description"):
        Explorer("t", draw, batch=widgets.IntSlider(1, description=description))


def test_controls_must_be_widgets_and_there_must_be_one():
    with pytest.raises(ValueError, match="'batch' is 3; pass an ipywidgets control"):
        Explorer("t", draw, batch=3)
    with pytest.raises(ValueError, match="no controls"):
        Explorer("t", draw)


def test_all_kinds_of_controls_are_prepared():
    controls = {
        "batch": batch_slider(),
        "price": widgets.FloatLogSlider(2.0, min=-2, max=2, description="price (USD)"),
        "mfu": widgets.FloatSlider(0.4, min=0, max=1, description="MFU"),
        "recipe": widgets.Dropdown(options=["SGD", "Adam"], description="recipe"),
        "spot": widgets.Checkbox(False, description="spot price"),
        "model": widgets.SelectionSlider(options=["small", "large"], description="model"),
    }
    seen = []

    def record(figure, **values):
        seen.append(values)
        return draw(figure, **values)

    explorer = Explorer("All", record, **controls)
    controls["recipe"].value = "Adam"
    controls["spot"].value = True
    controls["price"].value = 10.0
    controls["model"].value = "large"
    assert seen[-1] == explorer.params
    assert seen[-1] == {
        "batch": 32, "price": 10.0, "mfu": 0.4, "recipe": "Adam", "spot": True, "model": "large"
    }  # fmt: skip
    assert len(seen) == 5
    for control in controls.values():
        assert control.style.description_width == "initial"
        assert not getattr(control, "continuous_update", False)


def test_changes_from_two_threads_end_in_agreement():
    active, most_active = [0], [0]

    def slow(figure, batch):
        active[0] += 1
        most_active[0] = max(most_active[0], active[0])
        reading = draw(figure, batch)
        active[0] -= 1
        return reading

    explorer = Explorer("Efficiency", slow, batch=batch_slider())

    def move(values):
        for value in values:
            explorer.controls["batch"].value = value

    threads = [threading.Thread(target=move, args=(r,)) for r in (range(40, 45), range(90, 95))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_active == [1]
    assert f'"{explorer.params["batch"]}"' in explorer.reading
    assert explorer.figure.axes[0].get_title(loc="left") == f"batch={explorer.params['batch']}"


def test_nothing_global_is_touched(explorer):
    settings = dict(matplotlib.rcParams)
    pyplot = __import__("matplotlib.pyplot").pyplot
    pyplot.figure(num=7)
    explorer.controls["batch"].value = 99
    assert pyplot.get_fignums() == [7]
    pyplot.close(7)
    assert dict(matplotlib.rcParams) == settings
