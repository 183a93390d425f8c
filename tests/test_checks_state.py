"""The progress file under damage, two writers, a full disk and a folder that cannot be written."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.checks import check, engine, exercise, progress, state

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def path(monkeypatch, tmp_path):
    path = tmp_path / "some" / "folder" / ".progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    return path


def stored(path):
    return json.loads(path.read_text())["exercises"]


def names(path):
    return sorted(each.name for each in path.parent.iterdir())


def test_a_missing_folder_is_made_and_a_pass_is_kept(path):
    assert state.read() == ({}, "")
    for status in ("not attempted", "not yet", "not attempted", "passed", "not yet"):
        assert state.record("01.1", status) == ""
    assert state.record("01.2", "not yet") == ""
    assert state.read() == ({"01.1": "passed", "01.2": "not yet"}, "")
    assert names(path) == [".progress.json", ".progress.json.lock"]


def test_without_the_variable_it_is_the_ignored_file_in_the_course(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", " ")
    assert state.progress_path() == ROOT / ".progress.json"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": 1, "exercises": {"01.1": "pas',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b'{"format": 2, "exercises": {}}',
        b'{"format": 1, "exercises": {"01.1": "great"}}',
        b'{"format": 1, "exercises": {"01.1": ["passed"]}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_kept_aside(path, content):
    path.parent.mkdir(parents=True)
    for kept in (".progress.json.damaged", ".progress.json.damaged-2"):
        path.write_bytes(content)
        assert state.read()[0] == {} and "is damaged and was not read" in state.read()[1]
        assert state.record("01.1", "passed").endswith(f" was damaged: it is kept as {kept}.")
        assert (path.parent / kept).read_bytes() == content
        assert stored(path) == {"01.1": "passed"}


def fail_with(number):
    def fail(*arguments, **named):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number", "words"),
    [
        ("fsync", errno.ENOSPC, "No space left on device"),
        ("replace", errno.EACCES, "Permission denied"),
        ("open", errno.EROFS, "Read-only file system"),
    ],
)
def test_a_disk_that_refuses_is_one_sentence_and_loses_nothing(
    path, monkeypatch, function, number, words
):
    state.record("01.1", "passed")
    monkeypatch.setattr(os, function, fail_with(number))
    trouble = state.record("01.2", "passed")
    monkeypatch.undo()
    assert trouble == (
        f"Results cannot be stored in .progress.json: {words}. The checks are not affected, and "
        "progress() knows the results until the kernel ends; the environment variable "
        "COURSE_PROGRESS can name another file."
    )
    assert stored(path) == {"01.1": "passed"}
    assert names(path) == [".progress.json", ".progress.json.lock"]


def test_trouble_is_said_once_and_what_was_not_stored_is_stored_later(path, monkeypatch):
    state.record("01.1", "passed")
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    said = [state.record(key, "passed") for key in ("01.2", "01.3")]
    state.record("01.3", "not yet")
    assert "No space left on device" in said[0] and said[1] == ""
    assert state.read() == ({"01.1": "passed", "01.2": "passed", "01.3": "passed"}, "")
    monkeypatch.undo()
    assert state.record("01.4", "not yet", path) == ""
    assert stored(path) == {**dict.fromkeys(("01.1", "01.2", "01.3"), "passed"), "01.4": "not yet"}
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    assert "No space left" in state.record("01.5", "passed", path)  # a new trouble is said again


def test_ctrl_c_while_writing_leaves_the_old_file(path, monkeypatch):
    def interrupt(handle):
        raise KeyboardInterrupt

    state.record("01.1", "passed")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        state.record("01.2", "passed")
    assert stored(path) == {"01.1": "passed"}
    assert names(path) == [".progress.json", ".progress.json.lock"]


def test_a_file_in_place_of_the_folder(path):
    path.parent.parent.mkdir()
    path.parent.write_text("not a folder")
    assert state.read() == ({}, "Progress could not be read from .progress.json: Not a directory.")
    said = state.record("01.1", "passed")
    assert "cannot be stored in .progress.json: File exists" in said


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write anywhere")
def test_a_read_only_folder(path):
    state.record("01.1", "passed")
    path.with_name(".progress.json.lock").unlink()
    path.parent.chmod(0o500)
    try:
        said = state.record("01.2", "passed")
        assert "cannot be stored in .progress.json: Permission denied" in said
        assert stored(path) == {"01.1": "passed"}
        assert state.read() == ({"01.1": "passed", "01.2": "passed"}, "")
    finally:
        path.parent.chmod(0o700)


def test_a_lock_that_another_notebook_holds(path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(state, "LOCK_TIMEOUT_S", 0.05)
    path.parent.mkdir(parents=True)
    with FileLock(f"{path}.lock"):
        assert "another notebook is holding it" in state.record("01.1", "passed")


def test_two_processes_lose_nothing(path):
    program = (
        "import sys; from utils.checks import state\n"
        "for n in range(25): assert state.record(f'{sys.argv[1]}.{n}', 'passed') == ''"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, name], cwd=ROOT) for name in ("01", "02")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(stored(path)) == 50


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="'done' is none of passed, not yet, not attempted"):
        state.record("01.1", "done")


def test_the_table_of_progress(path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "EXERCISES", {})
    monkeypatch.setattr(engine, "_load_labs", lambda: None)
    for key, lab in (("02.1", "lab_02"), ("01.2", "lab_01"), ("01.1", "lab_01")):
        exercise(key, f"title of {key}", lab=lab)(lambda answer: "" if answer == 6 else 1 / 0)
    empty = ["0 of 3 exercises passed", "lab_01", "  01.1   not attempted  title of 01.1"]
    progress()
    assert capsys.readouterr().out.splitlines()[:3] == empty
    check("01.1", 6)
    check("01.2", 7)
    check("02.1", ...)
    capsys.readouterr()
    progress()
    assert capsys.readouterr().out.splitlines() == [
        "1 of 3 exercises passed",
        "lab_01",
        "  01.1   passed         title of 01.1",
        "  01.2   not yet        title of 01.2",
        "lab_02",
        "  02.1   not attempted  title of 02.1",
    ]
    path.write_text("{")
    check("01.1", 6)
    assert capsys.readouterr().out.splitlines() == [
        "01.1 title of 01.1: passed.",
        ".progress.json was damaged: it is kept as .progress.json.damaged.",
    ]
