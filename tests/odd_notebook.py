"""A notebook for odd places: a lesson's beginning, with ranks, and a lab's first exercise.

How it works: cells of the stored lesson 06 and of the solution of lab 01, and calls that every
lesson or lab makes, run by `jupyter nbconvert` in a kernel, as CI would.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from tests.odd_places import python

NAME = "my-labs/odd.ipynb"
NUM_LESSON_CELLS = 3  # find `utils`; two ranks; a rank that fails
CALLS = """
from utils.checks import hint, progress
from utils.corpus import load_corpus
from utils.plots import new_figure, show
from utils.predictions import reveal

reveal("Weights", 1e6, 842_496)
tokens_BT, _ = load_corpus().batch(0, 2, 16)
figure = new_figure(3, 2)
figure.subplots().plot(tokens_BT[0])
show(figure, "Bytes", "Some bytes.")
hint("01.1")
progress("lab_01")
"""


def write_notebook(place: Path) -> Path:
    """The notebook in a copy of the course."""
    lesson = _code(place / "notebooks/06_data_parallel.ipynb")[:NUM_LESSON_CELLS]
    lab = _code(place / "solutions/lab_01_the_bill.ipynb")
    (first,) = [number for number, text in enumerate(lab) if 'check("01.1"' in text]
    again = 'check("01.2", None)'
    cells = [*lesson, *lab[: first + 1], again, CALLS]
    path = place / NAME
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(text) for text in cells]), path)
    return path


def execute(notebook: Path | str = NAME) -> list[str]:
    """The command that runs a notebook where it lies, and writes it to standard output."""
    options = ("--to", "notebook", "--execute", "--stdout", "--log-level=ERROR")
    return python("-m", "nbconvert", *options, str(notebook))


def printed(ended: subprocess.CompletedProcess) -> str:
    """All that the cells printed; the run must have ended well."""
    assert ended.returncode == 0, ended.stderr[-3000:]
    outputs = [out for cell in nbformat.reads(ended.stdout, 4).cells for out in cell.outputs]
    errors = [out["text"] for out in outputs if out.get("name") == "stderr"]
    assert errors == []
    assert any("image/png" in out.get("data", {}) for out in outputs)
    return "".join(out["text"] for out in outputs if out.get("name") == "stdout")


def see_all_ran(text: str) -> None:
    """What the cells print in every place."""
    for words in (
        "one of 2", "ZeroDivisionError", "01.1 the bill of fine-tuning: passed.",
        "01.2 the peak with gradient accumulation: not attempted yet", "01.1 hint 1 of",
        "Weights: 842,000; you said 1,000,000", "1 of 5 exercises passed",
    ):  # fmt: skip
        assert words in text, text


def _code(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code"]  # fmt: skip
