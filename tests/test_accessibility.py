"""Notebooks, guide and slides can be read by everybody: headings, links, pictures, tables.

`tests/test_page_rules.py` tries each rule on a bad page. What needs a browser is in
`tests/browser/`; the look of figures is held by `tests/test_figures_readable.py`.

JupyterLab 4.6 gives a picture (image/png) no alternative text, whatever its metadata say; so the
printed line `Reading: ...` below it says the same to everybody. nbconvert takes the metadata, VS
Code takes the text twin, and an explorer's picture in JupyterLab is an `<img alt>`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat import NotebookNode

from tests import page_rules
from tests.page_parts import Page, outputs_of, page_of, prose_of
from utils.build.budgets import figure_problems
from utils.build.plan import FOLDERS
from utils.explorer import _error_html
from utils.measured import _html_table, measured
from utils.plots import image_html
from utils.slides.main import _PAGE, deck_html

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.ipynb"))]
LESSONS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "notebooks/instructor_guide.md")]


def name_of(path: Path) -> str:
    """The name of a file in a test's id and message."""
    return path.relative_to(ROOT).as_posix()


@cache
def stored(path: Path) -> NotebookNode:
    """A stored notebook."""
    return nbformat.read(path, as_version=4)


@cache
def prose(path: Path) -> Page:
    """The prose of a notebook or of a Markdown file."""
    if path.suffix == ".ipynb":
        return page_of(prose_of(stored(path)))
    return page_of(markdown2html_mistune(path.read_text(encoding="utf-8")))


def anchors_in(path: Path) -> set[str]:
    """The anchors of a page of the course, by which links lead into it."""
    return prose(path).anchors if path.suffix in (".ipynb", ".md") else set()


def no_problems(found: list[str], path: Path) -> None:
    """Fail with every sentence in `found`."""
    assert not found, "\n  ".join([f"{name_of(path)}:", *found])


@pytest.mark.parametrize("path", [*NOTEBOOKS, *TEXTS], ids=name_of)
def test_prose(path: Path) -> None:
    page = prose(path)
    found = [
        *page_rules.heading_problems(page),
        *page_rules.link_problems(page),
        *page_rules.target_problems(page, path.parent, anchors_in),
        *page_rules.image_problems(page),
        *page_rules.colour_problems(page),
    ]
    no_problems(found, path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_what_cells_show(path: Path) -> None:
    shown = page_of(outputs_of(stored(path)))
    found = [
        *page_rules.picture_problems(stored(path)),
        *figure_problems(stored(path)),
        *page_rules.table_problems(shown),
        *page_rules.caption_problems(stored(path)),
        *page_rules.image_problems(shown),
        *page_rules.link_problems(shown),
        *page_rules.colour_problems(shown),
    ]
    no_problems(found, path)


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_decks_of_slides(path: Path) -> None:
    page = page_of(deck_html(path))
    found = [
        *page_rules.language_problems(page),
        *page_rules.heading_problems(page),
        *page_rules.link_problems(page),
        *page_rules.image_problems(page),
        *page_rules.colour_problems(page),
    ]
    no_problems(found, path)


def test_the_index_of_the_decks() -> None:
    page = page_of(_PAGE.format(items='<li><a href="00.html">00 start</a></li>'))
    assert page_rules.language_problems(page) + page_rules.heading_problems(page) == []


def test_what_the_instruments_write() -> None:
    table = _html_table(["", "bytes"], [["weights", "12"], ["peak", measured(3.0, "ms")]])
    pieces = table + _error_html(ValueError("too large"), "batch = 4")
    page = page_of(pieces + image_html(b"", "The loss falls from 5.5 to 2.3."))
    assert len(page.cells) == 6 and len(page.images) == 1
    for rule in (
        page_rules.table_problems,
        page_rules.image_problems,
        page_rules.colour_problems,
    ):
        assert rule(page) == []
