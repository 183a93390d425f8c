"""Lessons and labs keep the course's style budgets; each budget is also tried on a bad notebook."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from utils.build import budgets as build_budgets

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LABS = sorted([*(ROOT / "labs").glob("*.ipynb"), *(ROOT / "solutions").glob("*.ipynb")])


def name_of(path: Path) -> str:
    """The name of a file in a test's id and message."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_lesson_keeps_its_budgets(path: Path) -> None:
    found = build_budgets.lesson_problems(nbformat.read(path, as_version=4))
    assert not found, "\n  ".join([f"{name_of(path)}:", *found])


@pytest.mark.parametrize("path", LABS, ids=name_of)
def test_lab_keeps_its_budgets(path: Path) -> None:
    lab_number = path.stem.split("_")[1]
    found = build_budgets.lab_problems(nbformat.read(path, as_version=4), lab_number)
    assert not found, "\n  ".join([f"{name_of(path)}:", *found])


def good_lesson() -> NotebookNode:
    """A lesson inside of every budget: 20 times prose and code under one title."""
    prose = "word " * 39 + "and so:"
    cells = [new_markdown_cell("# Title\n\nWhat we do:"), new_code_cell("import sys")]
    for _ in range(20):
        cells += [new_markdown_cell(f"## Part\n\n{prose} **now?**"), new_code_cell("x = 1\n" * 6)]
    cells += [new_markdown_cell("more " * 100) for _ in range(4)]
    return new_notebook(cells=cells)


def good_lab() -> NotebookNode:
    """A lab inside of every budget."""
    cells = [new_markdown_cell("# Lab"), new_code_cell("import sys"), new_markdown_cell("Text.")]
    for k in range(1, 5):
        cells += [
            new_markdown_cell(f"## Exercise {k}\n\nDifficulty 2 of 5, about 10 minutes."),
            new_code_cell('def f():\n    raise NotImplementedError("your turn")'),
            new_code_cell(f'check("01.{k}", f)\n# hint("01.{k}")'),
        ]
    return new_notebook(cells=cells)


def test_good_notebooks_pass() -> None:
    assert build_budgets.lesson_problems(good_lesson()) == []
    assert build_budgets.lab_problems(good_lab(), "01") == []


def png(text: str = "[figure] loss") -> NotebookNode:
    """A displayed picture."""
    return new_output("display_data", data={"image/png": "aaaa", "text/plain": text})


def printed(text: str) -> NotebookNode:
    """A printed text."""
    return new_output("stream", text=text)


BAD_LESSONS = [
    (lambda n: n.cells.extend(new_markdown_cell("x") for _ in range(30)), "76 cells; allowed"),
    (
        lambda n: [c.update(source="so?") for c in n.cells[2:] if c.cell_type == "markdown"],
        "28 words of prose; allowed are 1200",
    ),
    (lambda n: n.cells[-1].update(source="word " * 151), "has 151 words; allowed are 150"),
    (lambda n: n.cells[1].update(source="x = 1\n" * 31), "cell 2 has 31 lines of code; allowed"),
    (
        lambda n: [n.cells[k].update(source="x = 1\n" * 7) for k in range(3, 42, 2)],
        "7 lines in the median",
    ),
    (
        lambda n: [n.cells[k].update(source="x = 1\n" * 16) for k in (3, 5, 7)],
        "only 86% of the code cells have at most 15 lines",
    ),
    (
        lambda n: [n.cells[k].update(source="word " * 50 + ".") for k in (2, 4, 6, 8, 10)],
        "only 16 of 21 code cells follow prose that ends with a colon or a question mark; "
        "cells [4, 6, 8, 10, 12] do not",
    ),
    (lambda n: n.cells[2].update(source="# Second\n\n" + "word " * 40 + ":"), "2 first-level"),
    (lambda n: n.cells[0].update(source="Text:"), "there are 0 first-level headings"),
    (lambda n: n.cells[2].update(source="#### Deep\n\n" + "word " * 40 + ":"), "level 1 to 4"),
    (lambda n: n.cells[-1].update(source="![ ](a.png) " + "word " * 99), "without alternative"),
    (lambda n: n.cells[-1].update(source='<img src="a"> ' + "word " * 99), "without alternative"),
    (lambda n: n.cells[1].update(outputs=[png()]), "cell 2 shows a figure without a line"),
    (lambda n: n.cells[1].update(outputs=[png("[interactive] bill")]), "a figure without a line"),
    (lambda n: n.cells[1].update(outputs=[png("[interactive] bill: ")]), "a figure without a"),
    (lambda n: n.cells[1].update(outputs=[printed("Reading: a.\n"), png()]), "shows a figure"),
    (lambda n: n.cells[1].update(outputs=[png(), png(), printed("Reading: a.\n")]), "a figure"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD_LESSONS)
def test_lesson_budgets_find_what_they_forbid(spoil: object, words: str) -> None:
    lesson = good_lesson()
    spoil(lesson)
    problems = build_budgets.lesson_problems(lesson)
    assert [text for text in problems if words in text] == problems and len(problems) == 1


BAD_LABS = [
    (lambda n: n.cells.__delitem__(slice(9, None)), "9 cells; allowed are 15 to 35"),
    (lambda n: n.cells.__delitem__(slice(9, None)), "2 exercises (`## Exercise ...`); allowed"),
    (lambda n: n.cells.extend(new_markdown_cell("w " * 140) for _ in range(8)), "0 to 1000"),
    (lambda n: n.cells[3].update(source="## Exercise 1\n\n10 minutes"), "does not say difficulty"),
    (lambda n: n.cells[3].update(source="## Exercise 1\n\ndifficulty 1"), "does not say minutes"),
    (lambda n: n.cells[8].update(source='check("01.9", f)\n# hint("01.2")'), 'no check("01.2"'),
    (lambda n: n.cells[8].update(source='check("01.2", f)\nhint("01.2")'), "no commented # hint"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD_LABS)
def test_lab_budgets_find_what_they_forbid(spoil: object, words: str) -> None:
    lab = good_lab()
    spoil(lab)
    assert any(words in text for text in build_budgets.lab_problems(lab, "01"))


def test_readings_that_are_accepted() -> None:
    lesson = good_lesson()
    lesson.cells[1].outputs = [
        png(),
        printed("Reading: it falls.\n"),
        png("[interactive] bill: it is paid."),
        png("[live curve] loss"),
    ]
    assert build_budgets.figure_problems(lesson) == []


def test_words_are_what_a_reader_reads() -> None:
    text = "## A *title*\n\n```\nnot these\n```\n<b>two</b> [three](https://x.y/z) - $4$\n"
    assert build_budgets.num_words(text) == 5
    fenced = new_markdown_cell("# T\n\n```\n# not a heading\n```\n")
    assert build_budgets.heading_problems(new_notebook(cells=[fenced])) == []
