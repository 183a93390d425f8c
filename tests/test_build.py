"""The build on small fake courses: what it writes, what it refuses, and that it never half-writes.

These tests start kernels; test_build_text.py and test_build_guard.py need none.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError

from utils.build import main as build
from utils.build import plan as build_plan
from utils.build import run as build_run
from utils.build import text as build_text
from utils.build.plan import BuildError

REPOSITORY = Path(__file__).resolve().parents[1]
MARK = "\u23f1"
UTILS = '''
def double(x):
    """Twice x."""

    return 2 * x  # comment kept


class Empty(Exception):
    """Nothing else."""
'''
LESSON = f'''# %% [markdown]
# # A lesson
#
# Make the instruments importable:

# %%
import sys
from pathlib import Path
sys.path.insert(0, str(next(p for p in [Path.cwd(), *Path.cwd().parents] if (p / "utils").is_dir())))
import os, time
from IPython.display import display
from ipywidgets import IntSlider

# %%
# show: utils.tiny.double without docstring

# %%
print("{MARK}", time.time(), "{MARK}", double(21), flush=True)
print(Path.cwd().name, os.environ["OMP_NUM_THREADS"], Path(os.environ["COURSE_PROGRESS"]).exists())
display({{"text/html": f'<td class="measured">{{time.time()}}</td><pre class="measured">a\\n'
         f'{{time.time()}}</pre>', "text/plain": "twin"}}, raw=True)
print("after")
IntSlider()

# %% tags=["raises-exception"]
1 / 0
'''  # noqa: E501
LAB = """# %% [markdown]
# # A lab

# %% [markdown] tags=["solution"]
# The trick is to think about it.

# %% tags=["lab"]
note = "only for learners"

# %%
def triple(x):
    if x:
        ### BEGIN SOLUTION
        secret_number_of_times = 3
        return secret_number_of_times * x
        ### END SOLUTION
    return 0

# %%
print(triple(0))
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course with one lesson and one lab, in a folder with a space in its name."""
    root = tmp_path / "a course"
    for folder in ("sources", "utils", "notebooks", "labs", "solutions"):
        (root / folder).mkdir(parents=True)
    (root / "utils" / "tiny.py").write_text(UTILS)
    (root / "sources" / "01_a.py").write_text(LESSON, encoding="utf-8")
    (root / "sources" / "lab_01_a.py").write_text(LAB)
    return root


def stored(root: Path) -> dict[str, bytes]:
    """Every file of the three built folders."""
    paths = [path for folder in build_plan.FOLDERS for path in (root / folder).iterdir()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


def test_two_builds_differ_only_in_measurements_and_nbval_accepts_them(course: Path) -> None:
    build.build(course)
    first = stored(course)
    assert list(first) == [
        "labs/lab_01_a.ipynb",
        "notebooks/01_a.ipynb",
        "solutions/lab_01_a.ipynb",
    ]
    assert build.check(course) == []
    build.build(course)
    second = stored(course)
    assert first["labs/lab_01_a.ipynb"] == second["labs/lab_01_a.ipynb"]
    assert first["notebooks/01_a.ipynb"] != second["notebooks/01_a.ipynb"]  # the time of day
    times = re.compile(rb"\d{9,}\.\d+")
    assert [times.sub(b"T", text) for text in first.values()] == [
        times.sub(b"T", text) for text in second.values()
    ]
    assert not list(course.glob(".build-*"))
    lesson = nbformat.read(course / "notebooks" / "01_a.ipynb", as_version=4)
    outputs = lesson.cells[3].outputs
    assert [output.output_type for output in outputs] == [
        "stream", "display_data", "stream", "execute_result",
    ]  # fmt: skip
    assert outputs[0].text.endswith("42\nnotebooks 1 False\n")
    assert list(outputs[3].data) == ["text/plain"] and "widgets" not in lesson.metadata
    assert [c.execution_count for c in lesson.cells if c.cell_type == "code"] == [1, 2, 3, 4]
    assert lesson.cells[2].source == "def double(x):\n    return 2 * x  # comment kept"
    rules = REPOSITORY / "tests" / "nbval_sanitize.cfg"
    options = [
        "--nbval",
        "--nbval-current-env",
        "--nbval-cell-timeout=60",
        "-p",
        "no:cacheprovider",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--nbval-sanitize-with={rules}", "notebooks"],
        cwd=course, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "4 passed" in run.stdout, run.stdout + run.stderr


def test_failing_cell_is_named_and_nothing_is_written(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (course / "sources" / "lab_01_a.py").unlink()
    for text, number in (("x = 1\nraise KeyError('lost')", 2), ("open('left', 'w')", None)):
        (course / "sources" / "01_a.py").write_text(f"# %% [markdown]\n# # T\n\n# %%\n{text}\n")
        assert build.main(["--root", str(course)]) == 1
        said = capsys.readouterr().err
        assert "sources/01_a.py" in said and "Nothing was written." in said
        expected = f"cell {number} (`x = 1`)" if number else "leaves files in its folder (left)"
        assert expected in said and (number is None or "KeyError: 'lost'" in said)
        assert stored(course) == {} and not list(course.glob(".build-*"))


def test_time_out_is_tried_once_more(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (draft,) = build_text.drafts_of(course / "sources" / "01_a.py", course)
    attempts = []

    def late(
        notebook: object, folder: object, root: object, timeout_s: float, started: list
    ) -> None:
        attempts.append(timeout_s)
        started.append(1)
        if len(attempts) != 2:
            raise CellTimeoutError("late")

    monkeypatch.setattr(build_run, "_run", late)
    assert build_run.run_draft(draft, course, course, 7).cells == draft.notebook.cells
    assert attempts == [7, 7]
    with pytest.raises(BuildError, match=r"cell 2 \(`import sys`\).* more than 7 s, twice"):
        attempts.append(7)
        build_run.run_draft(draft, course, course, 7)
    limit = re.search(r"nbval-cell-timeout=(\d+)", (REPOSITORY / "pyproject.toml").read_text())
    assert limit and int(limit[1]) == build_run.CELL_TIMEOUT_S
