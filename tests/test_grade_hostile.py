"""Thirty hostile learners and an honest one in a room: each spoils its own rows, and no more."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.grade_hostile import ATTACKS, Attack
from tests.grade_rooms import LABS, QUICK, ROOT, answered, by_key, hand_in, notebook_of
from utils.grading.room import grade
from utils.grading.tree import descendants

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="grading needs Linux"),
    pytest.mark.slow,
]
LOOPS = [name for name, attack in ATTACKS.items() if "still running" in attack.words]
DELETES = "import shutil\nshutil.rmtree({place!r})\nreturn 1.0"


def _has_landlock() -> bool:
    from utils.grading.cage import landlock_version

    return landlock_version() >= 6


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """The folder of submissions, its files before, and the rows after a grading by two wardens."""
    place = tmp_path_factory.mktemp("room")
    folder, loops = place / "handed in", place / "loops"
    for name, attack in ATTACKS.items():
        if attack.needs_landlock and not _has_landlock():
            continue
        number = attack.exercise[0][:2]
        answers = {attack.exercise[1]: attack.source()}
        where = loops if name in LOOPS else folder
        hand_in(where, name, number, answered(number, answers, attack.before, attack.after))
    if _has_landlock():
        attack = Attack(DELETES.format(place=str(place)))
        hand_in(folder, "deletes", "01", answered("01", {attack.exercise[1]: attack.source()}))
    solved = (ROOT / "solutions" / f"{LABS['01'].stem}.ipynb").read_bytes()
    hand_in(folder, "zoe", "01", solved)
    before = {path: path.read_bytes() for path in place.rglob("*.ipynb")}
    said = []
    rows = []
    for where, out, exercise_s in ((folder, "grades", 90.0), (loops, "times", 6.0)):
        limits = replace(QUICK, exercise_s=exercise_s, lab_s=200.0)
        rows += grade(where, place / out, ROOT, ["01", "02", "07"], 2, limits, said.append)
    return place, before, by_key(rows), said


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_submission_gets_its_own_row_and_no_pass(room, name):
    attack, rows = ATTACKS[name], room[2]
    if attack.needs_landlock and not _has_landlock():
        pytest.skip("this kernel cannot keep it from that")
    row = rows[name, attack.exercise[0]]
    assert (row.status, attack.words in row.message) == (attack.status, True), row
    others = [rows[name, asked.key] for asked in LABS[attack.exercise[0][:2]].exercises
              if asked.key != attack.exercise[0]]  # fmt: skip
    assert {other.status for other in others} == {"not attempted"}


def test_what_reaches_behind_the_check_is_named(room):
    rows = room[2]
    assert "imports `gc`" in rows["forges_with_the_secret", "02.5"].look
    assert "changes `torch.equal`" in rows["patches_what_it_is_compared_with", "02.5"].look
    assert "was changed" in rows["patches_the_judge", "02.5"].look


def test_the_honest_one_passes_and_is_not_suspected(room):
    mine = [row for (learner, _), row in room[2].items() if learner == "zoe"]
    assert {row.status for row in mine if row.exercise < "02"} == {"passed"}
    assert not any(row.look for row in mine)


def test_submissions_and_table_are_as_they_should_be(room):
    place, before, rows, said = room
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in place.iterdir()} == {"handed in", "grades", "loops", "times"}
    assert {path.name for path in (place / "grades").iterdir()} == {"grades.csv", "grades.html"}
    assert len(said) == len(before)
    if _has_landlock():
        assert "PermissionError" in rows["deletes", "01.1"].message


def test_no_process_is_left(room):
    words = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in words if b"86399.25" in line]
    mine = [Path(f"/proc/{process}/cmdline").read_bytes() for process in descendants(os.getpid())]
    assert not [line for line in mine if b"utils.grading" in line]


def test_every_attack_is_tried_on_a_stub_of_the_lab():
    for attack in ATTACKS.values():
        sources = ["".join(c["source"]) for c in notebook_of(LABS[attack.exercise[0][:2]])["cells"]]
        assert any(f"def {attack.exercise[1]}(" in source for source in sources)
