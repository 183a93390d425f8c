"""The rules for readable pages find what they forbid, each on a bad page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from tests import page_rules
from tests.page_parts import page_of

GOOD = (
    '<html lang="en"><title>A page</title><h1 id="top">Title</h1><h2>Part</h2>'
    '<a href="#top">the title</a><img alt="The loss falls to two.">'
    '<table><tr><td></td><th scope="col">bytes</th></tr></table>'
    '<b style="color: #767676; background: white">text</b>'
)
BAD = [  # a rule, what is replaced, by what, words of the one sentence
    ("heading", "<h2>Part</h2>", "<h3>Part</h3>", "`Part` skips from level 1 to 3"),
    ("heading", "<h2>Part</h2>", "<h1>Part</h1>", "there are 2 first-level headings"),
    ("heading", "<h2>Part</h2>", "<h2> </h2>", "heading 2 is empty"),
    ("heading", '<h1 id="top">Title</h1><h2>Part</h2>', "<h2>P</h2><h1>T</h1>", "at the top"),
    ("link", "the title", "here", "`here` to #top says nothing"),
    ("link", "the title", "<b>This page.</b>", "says nothing"),
    ("link", "the title", "https://example.org/x", "says nothing"),
    ("link", "the title", "01_the_bill.ipynb", "says nothing"),
    ("link", "the title", "", "says nothing"),
    ("image", "The loss falls to two.", "", "the alternative text ``"),
    ("image", "The loss falls to two.", "a b c.png", "the alternative text `a b c.png`"),
    ("image", 'alt="The loss falls to two."', "", "the alternative text ``"),
    ("table", ' scope="col"', "", "1 head cells have no scope, first `bytes`"),
    ("table", '<th scope="col">bytes</th>', "<td>bytes</td>", "a table has no head"),
    ("table", ">bytes<", "> <", "a head cell is empty"),
    ("colour", "; background: white", "", "text in #767676 on #111111"),
    ("colour", "#767676", "#888888", "text in #888888 on white"),
    ("colour", "color: #767676; ", "", "sets a ground and no colour"),
    ("language", ' lang="en"', "", "the language is ``"),
    ("language", "<title>A page</title>", "", "the page has no title"),
]


@pytest.mark.parametrize(("rule", "old", "new", "words"), BAD)
def test_each_rule_finds_what_it_forbids(rule: str, old: str, new: str, words: str) -> None:
    problems = getattr(page_rules, f"{rule}_problems")
    assert problems(page_of(GOOD)) == [] and old in GOOD
    (problem,) = problems(page_of(GOOD.replace(old, new)))
    assert words in problem


def test_links_lead_somewhere(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# There\n")
    for href, words in (
        ("other.md", None),
        ("other.md#There", None),
        ("https://example.org", None),
        ("#top", None),
        ("other.md#Nowhere", "no such heading"),
        ("#nowhere", "no such heading"),
        ("missing.ipynb", "which is not there"),
    ):
        page = page_of(GOOD.replace('"#top"', f'"{href}"'))
        found = page_rules.target_problems(page, tmp_path, lambda _: {"There"})
        assert [words in each for each in found] == [True] * (words is not None), href


def shows(
    mode: str = "RGB", alt: str = "The loss falls to two.", twin: str = "[figure] Loss"
) -> NotebookNode:
    """A notebook of one cell that shows a picture."""
    buffer = io.BytesIO()
    Image.new(mode, (2, 2)).save(buffer, "PNG")
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": twin}
    output = new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})
    return new_notebook(cells=[new_code_cell("x", outputs=[output])])


def test_bad_pictures_are_found() -> None:
    assert page_rules.picture_problems(shows()) == []
    for notebook, words in (
        (shows(mode="RGBA"), "not opaque (RGBA)"),
        (shows(alt="figure_1.png"), "the alternative text `figure_1.png`"),
        (shows(alt=""), "the alternative text ``"),
        (shows(twin="<Figure size 640x480>"), "text twin is `<Figure"),
    ):
        (problem,) = page_rules.picture_problems(notebook)
        assert words in problem
    twice = shows()
    twice.cells += shows().cells
    assert len(page_rules.picture_problems(twice)) == 2  # alternative text and twin


def test_a_table_without_a_caption_is_found() -> None:
    table = new_output("display_data", data={"text/html": "<table></table>"})
    named = new_notebook(cells=[new_code_cell("x", outputs=[new_output("stream", text="Bytes\n")])])
    named.cells[0].outputs.append(table)
    assert page_rules.caption_problems(named) == []
    named.cells[0].outputs.pop(0)
    assert page_rules.caption_problems(named) == ["cell 1: a table has no caption"]
