"""What the build protects: edited notebooks, and old files when anything goes wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest

from utils.build import guard as build_guard
from utils.build import main as build
from utils.build import plan as build_plan
from utils.build import run as build_run

LESSON = "# %% [markdown]\n# # A lesson\n\n# %%\nx = 1\n"
LAB = "# %%\ndef f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built course; notebooks are "run" without a kernel."""
    monkeypatch.setattr(build, "run_draft", lambda draft, *_: build_run.clean(draft.notebook))
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "01_a.py").write_text(LESSON)
    (tmp_path / "sources" / "lab_01_a.py").write_text(LAB)
    assert len(build.build(tmp_path)) == 3
    return tmp_path


def stored(root: Path) -> dict[str, bytes]:
    """Every notebook in the three built folders."""
    paths = [path for folder in build_plan.FOLDERS for path in (root / folder).iterdir()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


def change_source(root: Path) -> None:
    """Make every source give other cells than the stored ones."""
    for path in (root / "sources").iterdir():
        path.write_text(path.read_text() + "\n# %%\ny = 2\n")


def save_like_jupyterlab(path: Path) -> None:
    """Outputs, counts, metadata, ids, line ends and an empty last cell change; cells do not."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    for k, cell in enumerate(notebook.cells):
        cell["id"] = f"other-{k}"
        cell.metadata["scrolled"] = True
        if cell.cell_type == "code":
            cell.execution_count = 17
            cell.outputs = [nbformat.v4.new_output("stream", text="mine")]
    notebook.cells.append(nbformat.v4.new_code_cell(""))
    nbformat.write(notebook, path)
    raw = json.loads(path.read_text())
    for cell in raw["cells"]:
        lines = "".join(cell["source"]).split("\n")
        cell["source"] = [line + "\r\n" for line in lines]
    path.write_text(json.dumps(raw, indent=4))


def test_a_save_is_no_edit_but_a_changed_cell_is(course: Path) -> None:
    lab = course / "labs" / "lab_01_a.ipynb"
    save_like_jupyterlab(lab)
    assert not build_guard.is_edited(lab)
    build.build(course)
    notebook = nbformat.read(lab, as_version=4)
    notebook.cells[0].source += "\n    # my idea"
    nbformat.write(notebook, lab)
    assert build_guard.is_edited(lab)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"metadata": {}, "cells": []}', "\udcff"])
def test_unreadable_or_foreign_file_counts_as_edited(content: str, course: Path) -> None:
    lab = course / "labs" / "lab_01_a.ipynb"
    lab.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert build_guard.is_edited(lab)
    (problem,) = build.check(course, ["lab_01_a"])
    expected = "has 0 cells" if "cells" in content else "is not a readable notebook."
    assert problem.startswith(f"labs/lab_01_a.ipynb {expected}")


def test_edited_files_stop_the_build_until_forced(
    course: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("labs/lab_01_a.ipynb", "notebooks/01_a.ipynb"):
        text = (course / name).read_text()
        (course / name).write_text(text.replace("x = 1", "x = 2").replace("your turn", "done"))
    change_source(course)
    before = stored(course)
    run, not_run = build.run_draft, pytest.fail
    monkeypatch.setattr(build, "run_draft", not_run)
    assert build.main(["--root", str(course)]) == 1
    said = capsys.readouterr().err
    assert "notebooks/01_a.ipynb, labs/lab_01_a.ipynb" in said and "solutions" not in said
    assert "make my-labs" in said and "--force" in said
    assert stored(course) == before
    monkeypatch.setattr(build, "run_draft", run)
    assert build.main(["--root", str(course), "--force"]) == 0
    assert all(new != before[name] for name, new in stored(course).items())
    assert build.check(course) == []


def test_edit_made_while_the_build_runs_is_kept(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson, run = course / "notebooks" / "01_a.ipynb", build.run_draft

    def edit_and_run(draft: build_plan.Draft, *rest: object) -> nbformat.NotebookNode:
        lesson.write_text("mine")
        return run(draft, *rest)

    monkeypatch.setattr(build, "run_draft", edit_and_run)
    with pytest.raises(build_plan.BuildError, match=r"01_a\.ipynb"):
        build.build(course)
    assert lesson.read_text() == "mine"


@pytest.mark.parametrize("trouble", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at_move", [1, 3])
def test_failed_move_undoes_the_others(
    trouble: BaseException,
    at_move: int,
    course: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (course / "notebooks" / "01_a.ipynb").unlink()  # so that one file is new, two are replaced
    change_source(course)
    before, moves, move = stored(course), [], os.replace

    def failing(new: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == at_move:
            raise trouble
        move(new, target)

    monkeypatch.setattr(build_guard.os, "replace", failing)
    assert build.main(["--root", str(course)]) == (1 if isinstance(trouble, OSError) else 130)
    assert "No notebook was changed." in capsys.readouterr().err
    assert stored(course) == before and not list(course.glob(".build-*"))


def test_check_names_what_is_not_built(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--root", str(course), "--check"]) == 0
    assert capsys.readouterr().out == "All is built.\n"
    (course / "notebooks" / "01_a.ipynb").unlink()
    (course / "notebooks" / "09_old.ipynb").write_text("{}")
    source = course / "sources" / "lab_01_a.py"
    source.write_text(source.read_text().replace("f()", "g()"))
    assert build.main(["--root", str(course), "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "notebooks/01_a.ipynb is missing.",
        "labs/lab_01_a.ipynb differs from sources/lab_01_a.py, first in cell 1.",
        "solutions/lab_01_a.ipynb differs from sources/lab_01_a.py, first in cell 1.",
        "notebooks/09_old.ipynb has no source; remove it.",
        "Run `make build`.",
    ]


def test_only_builds_what_is_named(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_source(course)
    assert build.build(course, ["01_a"]) == ["notebooks/01_a.ipynb"]
    assert [text.split()[0] for text in build.check(course)] == [
        "labs/lab_01_a.ipynb",
        "solutions/lab_01_a.ipynb",
    ]
    assert build.main(["--root", str(course), "--only", "02_b"]) == 1
    assert "no source named 02_b: --only takes names from 01_a, lab_01_a." in (
        capsys.readouterr().err
    )


def test_wrong_folders_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--root", str(tmp_path)]) == 1
    (tmp_path / "sources").mkdir()
    assert build.main(["--root", str(tmp_path)]) == 1
    (tmp_path / "sources" / "bill.py").write_text(LESSON)
    assert build.main(["--root", str(tmp_path)]) == 1
    missing, empty, misnamed = capsys.readouterr().err.splitlines()
    assert "is missing" in missing and "nothing to build" in empty
    assert "sources/bill.py is neither a lesson nor a lab" in misnamed
