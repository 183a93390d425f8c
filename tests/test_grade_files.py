"""Files that learners hand in, and the table: whatever is in them, one sentence and no harm."""

import csv
import json
import os

import pytest

from tests.grade_rooms import LABS, ROOT, hand_in
from utils.grading.clerk import Limits
from utils.grading.course import CourseError
from utils.grading.notebook import MAX_FILE_BYTES, SubmissionError, code_cells, read_submission
from utils.grading.room import grade
from utils.grading.submissions import find_submissions
from utils.grading.table import Row, as_html, as_text, read_rows, write_tables


def notebook(*sources) -> bytes:
    cells = [{"cell_type": "code", "source": source} for source in sources]
    return json.dumps({"cells": cells, "nbformat": 4}).encode()


@pytest.mark.parametrize(("content", "words"), [
    (b"", "empty"), (b" \n", "empty"), (b"PK\x03\x04", "damaged"), (b"[1, 2]", "not a notebook"),
    (b'{"cells": [{"cell_type": "code", "sou', "cut short"), (b"\xff\xfe", "damaged"),
    (b'{"worksheets": []}', "nbformat 4"), (b"[" * 200_000, "damaged"), (b'{"cells": 3}', "nbf"),
])  # fmt: skip
def test_what_is_no_notebook_is_refused_in_one_sentence(content, words):
    with pytest.raises(SubmissionError, match=words):
        code_cells(content)


def test_strange_cells_are_passed_over():
    cells = [1, None, {"cell_type": "markdown", "source": "x"}, {"cell_type": "code"},
             {"cell_type": "code", "source": [1]},
             {"cell_type": "code", "source": ["a = 1\n", "b = 2"]}]  # fmt: skip
    assert code_cells(json.dumps({"cells": cells}).encode()) == ["", "", "a = 1\nb = 2"]


def test_lines_for_ipython_keep_their_place_and_do_nothing():
    cells = code_cells(notebook("%matplotlib inline\nx = 5 % 3\n!rm -rf .\n  %time y = 1\nhelp?",
                                "%%bash\necho"))  # fmt: skip
    assert [line.split("#")[0].strip() for line in cells[0].split("\n")] == [
        "pass", "x = 5 % 3", "pass", "pass", "pass"]  # fmt: skip
    compile(cells[0].replace("  pass", "pass"), "cell", "exec")
    assert cells[1] == ""


def test_files_that_are_too_large_links_or_pipes_are_not_read(tmp_path):
    large, link, pipe = (tmp_path / name for name in ("large", "link", "pipe"))
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    link.symlink_to("/etc/passwd")
    os.mkfifo(pipe)
    for path, words in ((large, "MiB"), (link, "link"), (pipe, "plain file"), (tmp_path, "plain")):
        with pytest.raises(SubmissionError, match=words):
            read_submission(path)
    with pytest.raises(SubmissionError, match="cannot be read"):
        read_submission(tmp_path / "none")


def test_learners_are_subfolders_or_stand_in_front_of_the_name(tmp_path):
    places = ("ann/lab_01_the_bill.ipynb", "ann/my-labs/lab_02_x (1).ipynb", "bob_lab_01_x.ipynb",
              "van der Meer-lab_03.ipynb", "ann/.ipynb_checkpoints/lab_01-checkpoint.ipynb",
              "ann/notes.ipynb", "ann/lab_77_x.ipynb", "ann/lab_011.ipynb")  # fmt: skip
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    found, strange = find_submissions(tmp_path, set(LABS))
    assert [(each.learner, each.lab) for each in found] == [
        ("ann", "01"), ("ann", "02"), ("bob", "01"), ("van der Meer", "03")]  # fmt: skip
    assert [path.name for path in strange] == ["lab_011.ipynb", "lab_77_x.ipynb", "notes.ipynb"]


def test_folders_that_cannot_be_graded_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "room").mkdir()
    with pytest.raises(CourseError, match="not a folder"):
        find_submissions(tmp_path / "none", set(LABS))
    with pytest.raises(CourseError, match="holds no submitted lab"):
        find_submissions(tmp_path / "room", set(LABS))
    (tmp_path / "room" / "lab_01_the_bill.ipynb").touch()
    with pytest.raises(CourseError, match="without a learner's name"):
        find_submissions(tmp_path / "room", set(LABS))


def rows_of(room, **changes):
    options = {"out": room.parent / "grades", "root": ROOT, "say": lambda line: None} | changes
    return grade(room, **options)


def test_calls_that_cannot_work_are_refused_and_write_nothing(tmp_path):
    room = tmp_path / "room"
    hand_in(room, "ann", "01", b"")
    with pytest.raises(CourseError, match="There is no lab 77"):
        rows_of(room, only=["77"])
    with pytest.raises(CourseError, match="lies in the folder of the submissions"):
        rows_of(room, out=room / "grades")
    (tmp_path / "grades").mkdir()
    (tmp_path / "grades" / "grades.csv").write_text("name,points\nann,3\n")
    with pytest.raises(CourseError, match="is not a table of this command"):
        rows_of(room)
    assert (tmp_path / "grades" / "grades.csv").read_text() == "name,points\nann,3\n"


def test_files_that_cannot_be_judged_have_rows_that_say_why(tmp_path):
    room = tmp_path / "room"
    hand_in(room, "cut", "01", b'{"cells": [')
    with hand_in(room, "huge", "01", b"").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    hand_in(room, "twice", "01", b"{}").with_name("twice_lab_01_b.ipynb").write_bytes(b"{}")
    rows = {row.learner: row for row in rows_of(room, only=["01"], limits=Limits(exercise_s=5))
            if row.exercise == "01.5"}  # fmt: skip
    assert {row.status for row in rows.values()} == {"not yet"}
    assert "cut short" in rows["cut"].message and "20 are read" in rows["huge"].message
    assert "2 files for this lab" in rows["twice"].message
    assert len(read_rows(tmp_path / "grades")) == 15


NASTY = Row("=cmd()|<b>", "01.1", "passed", 'said "<script>", \n twice', "imports `os`")


def test_the_table_runs_nothing_in_a_spreadsheet_or_a_browser(tmp_path):
    write_tables([NASTY], tmp_path)
    with (tmp_path / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        line = next(csv.DictReader(file))
    assert line["learner"] == "'=cmd()|<b>" and line["message"] == 'said "<script>", twice'
    assert "<script>" not in as_html([NASTY]) and "&lt;script&gt;" in as_html([NASTY])
    assert [row.learner for row in read_rows(tmp_path)] == ["'=cmd()|<b>"]


def test_the_text_has_one_mark_an_exercise_and_names_what_needs_a_look():
    rows = [Row("ann", f"01.{k}", status, "") for k, status in
            enumerate(("passed", "not yet", "not attempted", "needs a look"), start=1)]  # fmt: skip
    text = as_text([*rows, NASTY])
    assert "\nann          +-.?\n" in text and "2 passed" in text
    assert "Needs a look: '=cmd()|<b> 01.1: imports `os`" in text


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_tables([NASTY], tmp_path)
    before = (tmp_path / "grades.csv").read_bytes()

    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_tables([NASTY, NASTY], tmp_path)
    assert (tmp_path / "grades.csv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
