"""The live curve without a browser, and strict nbval over a notebook of all the widgets."""

import base64
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import nbclient
import nbformat
import pytest

from utils import live as live_module
from utils.live import Live

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    """A clock that only moves when told to; each reading of it costs a millisecond."""

    def __init__(self):
        self.now_s = 100.0

    def perf_counter(self):
        self.now_s += 0.001
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(live_module, "time", clock)
    return clock


@pytest.fixture
def bundles(monkeypatch):
    shown = []
    monkeypatch.setattr(live_module, "publish", lambda data, _=None: shown.append(data))
    return shown


def test_at_most_two_drawings_a_second(clock, bundles, monkeypatch):
    monkeypatch.setattr(live_module, "png_of", lambda figure: b"png")
    with Live("loss") as live:
        for step in range(100):  # ten seconds
            live.log(step, step / 100, loss=5 - step / 50)
            clock.now_s += 0.1
    assert 10 <= live.num_drawings <= 20
    assert live._curves == {"loss": [(step, 5 - step / 50) for step in range(100)]}


def test_the_drawing_time_is_added_up(clock, bundles, monkeypatch):
    def slow_png(figure):
        clock.now_s += 0.25
        return b"png"

    monkeypatch.setattr(live_module, "png_of", slow_png)
    start_s = clock.now_s
    with Live("loss") as live:
        for step in range(10):
            live.log(step, step / 10, loss=1.0)
            clock.now_s += 1.0  # the training
    assert clock.now_s - start_s - live.overhead_s == pytest.approx(10.0, abs=0.05)
    assert live.overhead_s == pytest.approx(11 * 0.25, abs=0.1)


def test_widget_while_it_runs_and_picture_at_the_end(clock, bundles):
    with Live("loss on text", unit="tokens") as live:
        live.log(1000, 0.374, train=4.25, validation=4.5)
        assert (live._bar.value, live._bar.description) == (37, "37 %")
        assert 'alt="loss on text, tokens: 1,000; train 4.25, validation 4.5"' in live._image.value
        assert live.view.layout.display is None
        live.log(2000, 1.7, validation=4.0)  # one of the curves, and past the end
        clock.now_s += 1
        live.log(3000, 1.7, train=float("nan"))
        assert live._bar.value == 100
    assert live.view.layout.display == "none"
    first, last = bundles
    assert first["text/plain"].startswith("[live] loss on text: ")
    assert last["text/plain"] == "[live curve] loss on text"
    assert live.reading() == (
        "loss on text: train goes from \u23f1 4.25 \u23f1 at \u23f1 1,000 tokens \u23f1 to "
        "\u23f1 nan \u23f1 at \u23f1 3,000 tokens \u23f1; validation goes from \u23f1 4.50 "
        "\u23f1 at \u23f1 1,000 tokens \u23f1 to \u23f1 4.00 \u23f1 at \u23f1 2,000 tokens "
        "\u23f1."
    )
    assert base64.b64decode(last["image/png"]).startswith(b"\x89PNG")
    axes = live.figure().axes[0]
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[1000, 3000], [1000, 2000]]
    assert math.isnan(axes.get_lines()[0].get_ydata()[-1])
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("loss on text", "tokens")


def test_one_curve_names_its_axis(bundles):
    with Live("loss") as live:
        live.log(0, 0.0, loss=1.0)
    assert live.figure().axes[0].get_ylabel() == "loss"
    assert not live.figure().axes[0].texts


def test_an_error_closes_the_widget_keeps_the_curve_and_goes_on(bundles):
    with pytest.raises(KeyboardInterrupt), Live("loss") as live:
        live.log(0, 0.0, loss=1.0)
        raise KeyboardInterrupt
    assert live.view.layout.display == "none"
    assert [bundle["text/plain"] for bundle in bundles][1:] == ["[live curve] loss"]


class StopButton:
    """A value that is pressed while it is read."""

    def __float__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("logged", [0, 1, 2])
def test_a_point_is_kept_whole_or_not_at_all(bundles, logged):
    """Half a point would end the cell with an error of the picture's, and no picture."""
    with pytest.raises(KeyboardInterrupt), Live("loss") as live:
        for step in range(logged):
            live.log(step, 0.0, loss=1.0)
        live.log(logged, 0.0, loss=StopButton())
    assert len(bundles) == 1 + (logged > 0)


def test_an_error_before_the_first_point_shows_no_picture(bundles):
    with pytest.raises(ValueError, match="at least one named value"), Live("loss") as live:
        live.log(0, 0.0)
    assert live.view.layout.display == "none"
    assert len(bundles) == 1


def test_it_works_without_a_kernel(capsys):
    with Live("loss") as live:
        live.log(0, 1.0, loss=1.0)
    assert capsys.readouterr().out.splitlines()[1] == "[live curve] loss"


NOTEBOOK_CELLS = [
    """
    import time
    import ipywidgets as widgets
    from utils.explorer import Explorer
    from utils.live import Live
    from utils.measured import measured, measured_text, table
    from utils.plots import new_figure, show
    """,
    """
    def draw(figure, n):
        figure.subplots().plot(range(n))
        return f"The last point is {n - 1}."

    Explorer("Points", draw, n=widgets.IntSlider(5, 1, 9, description="points"))
    """,
    """
    with Live("time") as live:
        for step in range(3):
            live.log(step, step / 3, seconds=time.perf_counter())
    print("drawing took", measured(live.overhead_s, "s"))
    """,
    """
    figure = new_figure()
    figure.subplots().plot([1, time.perf_counter()])
    show(figure, "a measured line", "The line rises.")
    """,
    """
    table(["what", "now"], [["clock", measured(time.perf_counter() ** 3, "s")]], "Clocks")
    measured_text("Now", f"<{time.perf_counter()}>\\nseconds")
    """,
    """
    print("2 + 2 is 4")
    """,
]


def run_nbval(folder: Path, notebook: nbformat.NotebookNode) -> subprocess.CompletedProcess:
    nbformat.write(notebook, folder / "widgets.ipynb")
    rules = ROOT / "tests" / "nbval_sanitize.cfg"
    options = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={rules}", "-q"]
    command = [sys.executable, "-m", "pytest", *options, "--nbval-cell-timeout=60", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_notebook_of_all_of_it_is_strictly_stable(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in NOTEBOOK_CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    notebook.cells[-1].outputs[0].text = "2 + 2 is 5\n"
    result = run_nbval(tmp_path, notebook)
    # The last cell, whose stored output was changed, shows that the comparison is alive.
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert "1 failed, 5 passed" in result.stdout, result.stdout
    assert len(failed) == 1 and "Cell 5" in failed[0], result.stdout
