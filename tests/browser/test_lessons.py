"""A learner opens a notebook in JupyterLab, runs it and plays with every explorer.

Each lesson, untouched lab and solution has one test. Some of each kind run always; with
COURSE_BROWSER=all in the environment all do, which takes as long as running the whole course.
"""

import json
import os
import re
from pathlib import Path

import pytest
from explorer_page import EXPLORER, all_explorers
from keyboard_walk import walk_to_all_ends

from utils.build.plan import FOLDERS

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]

# The first lesson, one with three explorers, one that starts processes from its kernel, and a lab.
ALWAYS = ("00_start_here", "01_the_bill", "06_data_parallel", "labs/lab_01_the_bill")
WANTS_ALL = os.environ.get("COURSE_BROWSER") == "all"
MAKES_EXPLORER = re.compile(r"^\w*[eE]xplorer\(", re.MULTILINE)


def _notebooks():
    """Every committed notebook; those that do not always run are slow, and skipped by default."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.ipynb")):
            name = f"{folder}/{path.name}"
            is_always = name.removeprefix("notebooks/").removesuffix(".ipynb") in ALWAYS
            skip = pytest.mark.skipif(not WANTS_ALL, reason="only with COURSE_BROWSER=all")
            yield pytest.param(name, id=name, marks=[] if is_always else [pytest.mark.slow, skip])


@pytest.mark.parametrize("path", list(_notebooks()))
def test_a_notebook_runs_whole_and_its_explorers_answer_to_the_keyboard(path, lab_page, lab_server):
    expected = _explorers_in(lab_server.folder / path)
    lab_page.open_notebook(path)
    lab_page.run_all()
    lab_page.assert_nothing_is_broken()
    shown = lab_page.page.locator(EXPLORER).count()
    views = sum(_has_view(output) for cell in lab_page.code_cells() for output in cell["outputs"])
    assert (shown, views) == (expected, expected), "explorers in the page, in the outputs, expected"
    for explorer in all_explorers(lab_page.page) if expected else []:
        walk_to_all_ends(explorer)
        lab_page.assert_nothing_is_broken()


def test_the_notebooks_that_always_run_are_there():
    names = {param.values[0] for param in _notebooks() if not param.marks}
    assert len(names) == len(ALWAYS)


def _explorers_in(path):
    """How many explorers the code of a notebook makes; its stored outputs must be as many."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    made = sum(len(MAKES_EXPLORER.findall("".join(cell["source"]))) for cell in cells)
    stored = "".join(json.dumps(cell["outputs"]) for cell in cells).count('"[interactive] ')
    assert made == stored, f"{path.name} makes {made} explorers and stores {stored}"
    return made


def _has_view(output):
    text = "".join(output.get("data", {}).get("text/plain", ""))
    return text.startswith("[interactive] ")
