"""A run lesson and a run lab in JupyterLab's light and dark theme: can the words be read?

What the course writes itself is held to WCAG's contrast: tables, readings, controls and their
labels, the sentences of checks, and prose with the code and links in it. Pictures must be opaque,
since their lines and letters are dark.
"""

import pytest
from contrast import texts_and_low_ones

pytestmark = [pytest.mark.browser, pytest.mark.slow]

THEMES = ("JupyterLab Light", "JupyterLab Dark")
# What is there to be read, and how many texts of each kind these notebooks have at least.
KINDS = {
    "labs/lab_01_the_bill.ipynb": {".jp-RenderedText": 4, ".jp-RenderedMarkdown": 40},
    "notebooks/01_the_bill.ipynb": {
        ".jp-OutputArea-output table": 40,
        ".jp-RenderedText": 10,
        ".course-reading": 3,
        ".course-explorer": 15,
        ".jp-RenderedMarkdown": 60,
    },
}
OPAQUE = """async () => {
    const pictures = [...document.querySelectorAll(".jp-OutputArea-output img")];
    const clear = async (image) => {
        await image.decode();
        const canvas = document.createElement("canvas");
        const context = canvas.getContext("2d");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        return data.some((value, place) => place % 4 === 3 && value < 255);
    };
    const found = await Promise.all(pictures.map(clear));
    return [pictures.length, found.filter(Boolean).length];
}"""


@pytest.mark.parametrize("path", KINDS)
def test_words_and_figures_are_seen_in_both_themes(path, lab_page):
    lab_page.open_notebook(path)
    lab_page.run_all()
    try:
        for theme in THEMES:
            lab_page.set_theme(theme)
            _assert_readable(lab_page.page, path, theme)
    finally:
        lab_page.set_theme(THEMES[0])  # JupyterLab remembers it, and other tests are not about it
    lab_page.assert_nothing_is_broken()


def _assert_readable(page, path, theme):
    for selectors, at_least in KINDS[path].items():
        number, low = texts_and_low_ones(page, selectors)
        assert number >= at_least, f"{theme}: only {number} texts in {selectors}"
        assert not low, f"{theme}: {low}"
    pictures, transparent = page.evaluate(OPAQUE)
    assert transparent == 0 and (pictures >= 4 or path.startswith("labs")), f"{theme}: {pictures}"
