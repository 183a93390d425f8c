"""A learner's private copy of the labs: never overwritten, never half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils import my_labs


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course with two labs and a file that is not a lab."""
    (tmp_path / "labs" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("lab_01_a.ipynb", "lab_02_b.ipynb", "notes.txt"):
        (tmp_path / "labs" / name).write_text(name)
    return tmp_path


def test_copies_labs_and_nothing_else_and_keeps_work(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--root", str(course)]
    assert my_labs.main(command) == 0
    assert capsys.readouterr().out == (
        "copied my-labs/lab_01_a.ipynb\ncopied my-labs/lab_02_b.ipynb\n"
    )
    mine = course / "my-labs"
    assert sorted(os.listdir(mine)) == ["lab_01_a.ipynb", "lab_02_b.ipynb"]
    assert (mine / "lab_01_a.ipynb").read_text() == "lab_01_a.ipynb"
    (mine / "lab_01_a.ipynb").write_text("my work")
    assert my_labs.main(command) == 0
    assert capsys.readouterr().out == (
        "kept my-labs/lab_01_a.ipynb (it differs from labs/lab_01_a.ipynb)\n"
        "kept my-labs/lab_02_b.ipynb (unchanged)\n"
    )
    assert (mine / "lab_01_a.ipynb").read_text() == "my work"
    assert my_labs.main([*command, "--to", "evening/two"]) == 0
    assert (course / "evening" / "two" / "lab_02_b.ipynb").exists()


def test_a_link_to_nowhere_is_kept_too(course: Path) -> None:
    (course / "my-labs").mkdir()
    link = course / "my-labs" / "lab_01_a.ipynb"
    link.symlink_to(course / "gone")
    assert my_labs.copy_labs(course)[0].startswith("kept")
    assert link.is_symlink() and not (course / "gone").exists()


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("labs", "belongs to the course"),
        ("solutions/mine", "belongs to the course"),
        ("../elsewhere", "could not find utils/"),
        (".", "could not find utils/"),
        ("labs/notes.txt", "belongs to the course"),
        ("a_file", "cannot be copied into"),
    ],
)
def test_unfit_folders(
    to: str, words: str, course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (course / "a_file").write_text("")
    before = sorted(course.parent.rglob("*"))
    assert my_labs.main(["--root", str(course), "--to", to]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert sorted(course.parent.rglob("*")) == before


def test_full_disk_leaves_no_half_lab(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        with open(path, "wb") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(my_labs.CopyError, match="No space left on device"):
        my_labs.copy_labs(course)
    assert list((course / "my-labs").iterdir()) == []


def test_no_labs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert my_labs.main(["--root", str(tmp_path)]) == 1
    assert "run `make build` first" in capsys.readouterr().err
    assert not (tmp_path / "my-labs").exists()
