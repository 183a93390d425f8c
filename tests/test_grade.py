"""Grading as an instructor does it: solutions pass, untouched labs do not, and it resumes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.grade_rooms import LABS, QUICK, ROOT, answered, by_key, hand_in, notebook_of
from utils.grading.course import CourseError
from utils.grading.kinds import APART, RANKS, kind_of
from utils.grading.room import grade

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
COMMAND = [sys.executable, "-m", "utils.grade"]


def copied(room: Path, learner: str, folder: str, *numbers: str) -> None:
    for number in numbers:
        hand_in(room, learner, number, (ROOT / folder / f"{LABS[number].stem}.ipynb").read_bytes())


def run(*arguments: object, **changes) -> subprocess.CompletedProcess:
    words = [*COMMAND, *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, **changes)


@pytest.mark.slow
def test_solutions_pass_in_every_way_of_judging_and_untouched_labs_are_not_attempted(tmp_path):
    """Three labs have exercises of all three ways; `--rehearse` does all labs."""
    room = tmp_path / "room"
    numbers = ("01", "02", "09")
    copied(room, "solved", "solutions", *numbers)
    copied(room, "untouched", "labs", *LABS)
    rows = grade(room, tmp_path / "grades", ROOT, limits=None, say=lambda line: None)
    odd = [row for row in rows if row.learner == "solved" and row.exercise[:2] in numbers
           and (row.status, row.look) != ("passed", "")]  # fmt: skip
    assert not odd
    assert {row.status for row in rows if row.learner == "untouched"} == {"not attempted"}
    assert {kind_of(row.exercise) for row in rows if row.exercise[:2] in numbers} == {
        "apart", "ranks", "inside"}  # fmt: skip


def test_every_exercise_has_one_way_of_judging():
    keys = {asked.key for lab in LABS.values() for asked in lab.exercises}
    assert APART | RANKS <= keys and not APART & RANKS


def test_a_wrong_answer_gets_the_words_of_its_check(tmp_path):
    wrong = "def fine_tuning_bytes(config, num_trainable_blocks):\n    return missing + 1"
    none = "def accumulation_peak_bytes(config, micro_batch_size):\n    pass"
    room = tmp_path / "room"
    answers = {"fine_tuning_bytes": wrong, "accumulation_peak_bytes": none}
    hand_in(room, "ann", "01", answered("01", answers))
    rows = by_key(grade(room, tmp_path / "out", ROOT, limits=QUICK, say=lambda line: None))
    assert rows["ann", "01.1"].message == (
        "your code raised NameError: name 'missing' is not defined (line 2 of your function: "
        "`return missing + 1`)."
    )
    assert "the function ends without a return" in rows["ann", "01.2"].message


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A course of its own: while it is developed, the real one may change between two gradings."""
    place = tmp_path_factory.mktemp("course")
    for folder in ("utils", "labs"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def test_the_answer_of_another_course_and_a_renamed_one_are_not_attempted(tmp_path):
    renamed = notebook_of(LABS["01"], "solutions")
    text = json.dumps(renamed).replace("fine_tuning_bytes", "my_bytes")
    hand_in(tmp_path / "room", "renamed", "01", text)
    other = {"cells": [{"cell_type": "code", "source": "print('hello')"}], "nbformat": 4}
    hand_in(tmp_path / "room", "other", "01", json.dumps(other))
    rows = by_key(grade(tmp_path / "room", tmp_path / "o", ROOT, limits=QUICK, say=lambda _: None))
    assert rows["renamed", "01.1"].status == "not attempted"
    assert 'check("01.1", ...) names my_bytes' in rows["renamed", "01.1"].message
    assert rows["renamed", "01.2"].status == "passed"
    assert "no `training_bill`" in rows["other", "01.5"].message


def test_what_was_graded_is_kept_while_the_file_is_the_same(tmp_path, course):
    room, out = tmp_path / "room", tmp_path / "grades"
    copied(room, "ann", "labs", "01")
    copied(room, "bob", "labs", "01")
    said: list[str] = []
    first = grade(room, out, course, limits=QUICK, say=said.append)
    assert [line.split()[1] for line in said] == ["ann", "bob"]
    copied(room, "bob", "solutions", "01")
    said.clear()
    second = by_key(grade(room, out, course, limits=QUICK, say=said.append))
    assert said == ["[1/1] bob lab 01: 5 passed"]
    assert [row for row in second.values() if row.learner == "ann"] == first[:5]
    shutil.rmtree(room / "bob")
    assert {row.learner for row in grade(room, out, course, say=said.append)} == {"ann"}
    with (course / "utils" / "checks" / "lab_01_money.py").open("a") as file:
        file.write("raise RuntimeError('half of an edit')\n")
    with pytest.raises(CourseError, match="half of an edit"):
        grade(room, out, course, limits=QUICK, say=said.append)


def test_an_interrupted_grading_keeps_its_rows_and_leaves_no_process(tmp_path):
    room, out = tmp_path / "room", tmp_path / "grades"
    copied(room, "ann", "labs", "01")
    loops = "def accumulation_peak_bytes(*args):\n    while True: pass"  # for a minute, if let
    hand_in(room, "bob", "01", answered("01", {"accumulation_peak_bytes": loops}))
    words = [*COMMAND, str(room), "--out", str(out)]
    grader = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, "TMPDIR": str(tmp_path)}, text=True,
                              start_new_session=True)  # fmt: skip
    assert "ann lab 01: 5 not attempted" in grader.stdout.readline()
    while not [p for p in Path("/proc").glob("[0-9]*/environ") if _mentions(p, str(tmp_path))]:
        time.sleep(0.1)
    time.sleep(1.0)  # now bob's loop runs, or is about to
    os.killpg(grader.pid, signal.SIGINT)
    _, errors = grader.communicate(timeout=40)
    assert grader.returncode == 130 and "give the same command again" in errors
    assert not [p for p in Path("/proc").glob("[0-9]*/environ") if _mentions(p, str(tmp_path))]
    assert {path.name for path in tmp_path.iterdir()} == {"room", "grades"}
    assert (out / "grades.csv").read_text(encoding="utf-8").count("ann,") == 5


def _mentions(path: Path, words: str) -> bool:
    try:
        return words in path.read_bytes().decode(errors="replace")
    except OSError:
        return False


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path):
    for arguments, words in (((tmp_path / "none",), "is not a folder"), ((), "--rehearse"),
                             ((tmp_path, "--jobs", 0), "number of jobs")):  # fmt: skip
        found = run(*arguments)
        assert found.returncode in (1, 2) and words in found.stderr
        assert "Traceback" not in found.stderr


def test_the_command_writes_both_tables_and_shows_one(tmp_path):
    room = tmp_path / "a room"
    copied(room, "Zoë", "labs", "01")
    (room / "Zoë" / "notes.ipynb").touch()
    found = run(room, "--out", tmp_path / "grades", "--labs", "01", "02")
    assert found.returncode == 0, found.stderr
    assert "not graded, no lab of the course: Zoë/notes.ipynb" in found.stdout
    assert "Zoë      .....  ....." in found.stdout and "10 not attempted" in found.stdout
    text = (tmp_path / "grades" / "grades.csv").read_text(encoding="utf-8-sig")
    assert "Zoë,02.1,not attempted,No file was handed in." in text
    assert "<h1>Grades</h1>" in (tmp_path / "grades" / "grades.html").read_text(encoding="utf-8")
