"""Explorer and Live in a real browser, on a small notebook made here."""

import textwrap

import nbformat
import pytest
from contrast import texts_and_low_ones
from explorer_page import ExplorerPage

pytestmark = pytest.mark.browser

CELLS = [
    """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, str(next(p for p in Path.cwd().parents if (p / "utils").is_dir())))
    import ipywidgets as widgets
    from utils.explorer import Explorer
    from utils.live import Live
    """,
    """
    def draw(figure, n, recipe):
        if n == 7:
            raise ValueError("seven <b>is</b> refused")
        figure.subplots().plot(range(n))
        return f"The {recipe} line has {n} points & ends at {n - 1}."

    Explorer(
        "Points", draw, n=widgets.IntSlider(5, 2, 9, description="number of points"),
        recipe=widgets.Dropdown(options=["plain", "fancy"], description="recipe"),
    )
    """,
    """
    with Live("loss of the test") as live:
        for step in range(30):
            live.log(step, step / 30, loss=1 / (step + 1))
            time.sleep(0.1)
    """,
]
WHITE_CORNER = """async (image) => {
    await image.decode();
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    context.drawImage(image, 0, 0);
    return Array.from(context.getImageData(1, 1, 1, 1).data);
}"""


@pytest.fixture
def lab(lab_page, lab_server):
    """The page with the notebook above open in it."""
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, lab_server.folder / "notebooks" / "widgets_test.ipynb")
    lab_page.open_notebook("notebooks/widgets_test.ipynb")
    return lab_page


def test_explorer_follows_its_controls_and_shows_errors_in_words(lab):
    lab.run_all()
    explorer = ExplorerPage(lab.page)
    first = explorer.shown()
    assert first.reading == "The plain line has 5 points & ends at 4."
    six = explorer.press("ArrowRight")
    assert six.reading == "The plain line has 6 points & ends at 5."
    assert six.picture != first.picture

    seven = explorer.press("ArrowRight")
    assert "This setting failed: ValueError: seven <b>is</b> refused" in seven.error
    assert "still shows the last setting that worked: number of points = 6" in seven.error
    assert (seven.picture, seven.reading) == (six.picture, "")

    eight = explorer.press("ArrowRight")
    assert (eight.error, eight.reading) == ("", "The plain line has 8 points & ends at 7.")
    low, high = explorer.move_to_both_ends()
    assert ("has 2 points" in low.reading, "has 9 points" in high.reading) == (True, True)

    explorer.root.locator("select").select_option("fancy")
    assert explorer.shown(other_than=high).reading.startswith("The fancy line has 9 points")
    assert not lab.errors, lab.errors
    lab.page.evaluate("console.error('made by the test')")  # the collection is alive
    assert [error.split(" (")[0] for error in lab.errors] == ["console error: made by the test"]


def test_live_curve_is_shown_while_the_cell_runs_and_ends_as_a_picture(lab):
    lab.start_all()
    live = lab.page.locator(".course-live")
    live.locator("img").wait_for()
    early = live.locator("img").get_attribute("src")
    assert lab.page.evaluate("window.courseRun") == "running"
    lab.page.wait_for_function(
        "(src) => document.querySelector('.course-live img')?.src !== src", arg=early
    )
    lab.wait_for_end()
    live.wait_for(state="hidden")
    bundles = [output["data"] for output in lab.code_cells()[-1]["outputs"]]
    assert bundles[-1]["text/plain"] == "[live curve] loss of the test"
    assert bundles[-1]["image/png"]
    last_cell = lab.page.locator(".jp-CodeCell").last
    last_cell.locator(".jp-RenderedImage img").wait_for(state="visible")
    assert not lab.errors, lab.errors


def test_dark_theme_keeps_the_figure_white_and_the_words_readable(lab):
    lab.set_theme("JupyterLab Dark")
    lab.run_all()
    explorer = ExplorerPage(lab.page)
    explorer.press("End")
    assert explorer.root.locator("img").evaluate(WHITE_CORNER) == [255, 255, 255, 255]
    number, low = texts_and_low_ones(lab.page, ".course-explorer")
    assert number >= 5 and not low, low
    lab.set_theme("JupyterLab Light")  # JupyterLab remembers it, and the next test is not about it
    assert not lab.errors, lab.errors
