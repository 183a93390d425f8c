"""The parts of `utils.prove` that run nothing: plan, orders, records, summary, statuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.prove_course import ROOT, a_record, make_course
from utils import prove
from utils.proving.plan import Conditions, Plan, find_notebooks, orders
from utils.proving.records import add_record
from utils.proving.results import Results, complaints

CELLS = [("print(1)", "1\n")]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Two lessons, and a lab with its solution."""
    made = make_course(tmp_path / "course", b=CELLS, a=CELLS, lab_a=CELLS)
    (made / "solutions" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("lab_a.ipynb", ".ipynb_checkpoints/lab_a.ipynb"):
        (made / "solutions" / name).write_bytes((made / "labs" / "lab_a.ipynb").read_bytes())
    return made


def test_notebooks_in_pytests_order_and_by_name(course: Path) -> None:
    whole = ("notebooks/a.ipynb", "notebooks/b.ipynb", "labs/lab_a.ipynb", "solutions/lab_a.ipynb")
    assert find_notebooks(course) == whole
    assert find_notebooks(course, ["lab_a", "notebooks/b.ipynb"]) == whole[1:]
    assert find_notebooks(course, ["solutions/lab_a"]) == whole[3:]


def test_orders_come_from_the_seed_and_are_new_each_time() -> None:
    names = tuple("abcdef")

    def first(seed: int | None, names: tuple[str, ...] = names) -> list[list[str]]:
        plan = Plan(ROOT, names, True, Conditions(seed=seed))
        return list(islice(orders(plan), 30))

    assert first(None) == [list(names)] * 30
    assert first(5) == first(5) != first(6)
    assert all(sorted(order) == list(names) for order in first(5))
    assert all(one != two for one, two in zip(first(5), first(5)[1:], strict=False))
    assert {tuple(order) for order in first(5, ("a", "b"))[::2]} in ({("a", "b")}, {("b", "a")})
    assert first(5, ("a",)) == [["a"]] * 30


def test_the_load_has_cores_that_the_notebooks_have() -> None:
    assert Conditions((3, 5), num_load=3).load_cores() == [3, 5, 3]
    assert Conditions((), num_load=2).load_cores() == [-1, -1]


def test_complaints_about_what_no_cell_says() -> None:
    results = Results()
    results.passed.update({"a": 2, "b": 1})
    results.failed["b"] += 1
    results.seconds.update(a=1.0, b=1.0)
    assert complaints(results, ["a", "b"], {"a": 2, "b": 2}) == []
    assert complaints(results, ["b", "a"], {"a": 2, "b": 2}) == [
        "pytest did not keep the order of the notebooks"
    ]
    assert complaints(results, ["a", "b"], {"a": 2, "b": 3}) == ["b (2 of 3 cells compared)"]
    assert complaints(Results(), ["a"], {"a": 0}) == ["a (0 of 0 cells compared)"]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """Repetitions are not run: each call gives the next entry, a record or something to raise."""
    script: list = []

    def repeat_once(plan: Plan, order: list[str], number: int, *more: object):
        entry = script.pop(0)
        if isinstance(entry, BaseException):
            raise entry
        return entry

    monkeypatch.setattr(prove, "repeat_once", repeat_once)
    yield script


PASSES, FAILS = a_record(), a_record(passed=6, failed=1, failing=["notebooks/a.ipynb::Cell 3"])


@pytest.mark.parametrize(
    ("script", "words", "status", "said"),
    [
        ([PASSES, PASSES], [], 0, "2 of 2 repetitions done, all passed; 14 cells compared."),
        ([PASSES, FAILS], [], 1, "2 of 2 repetitions done, 1 failed; 14 cells compared."),
        ([FAILS, PASSES], [], 1, "2 of 2 repetitions done, 1 failed; 14 cells compared."),
        ([FAILS], ["--stop"], 1, "1 of 2 repetitions done, 1 failed; 7 cells compared."),
        ([PASSES], ["--within", "0.19"], 0, "is not begun.\n1 of 2 repetitions done, all"),
        ([PASSES, PASSES], ["--within", "9"], 0, "2 of 2 repetitions done"),
        ([PASSES, KeyboardInterrupt()], [], 130, "Stopped; finished repetitions are recorded."),
        ([PASSES, OSError(28, "No space left on device")], [], 2, "Cannot go on ([Errno 28] No"),
    ],
)
def test_statuses_and_what_is_kept(
    course: Path, scripted: list, capsys, script: list, words: list[str], status: int, said: str
) -> None:
    scripted += script
    log = course.parent / "log"
    asked = ["--folder", str(course), "--log", str(log), "--times", "2", *words]
    assert prove.main(asked) == status
    shown = capsys.readouterr()
    assert said in shown.out + shown.err and not scripted
    kept = [entry for entry in script if not isinstance(entry, BaseException)]
    assert len((log / "records.jsonl").read_text().splitlines()) == len(kept)


def test_the_summary_adds_up_equal_conditions_only(tmp_path: Path, capsys) -> None:
    """Two folders, one named twice, and a line that was cut off."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    for record in (PASSES, FAILS, a_record(seed=3, seconds=99.0)):
        add_record(record, one)
    for record in (PASSES, a_record(is_whole=False), a_record(num_cores=1, num_load=1)):
        add_record(record, two)
    with (two / "records.jsonl").open("a") as file:
        file.write('{"run": "r", "num')
    assert prove.main(["--summary", str(one), str(two), str(one / "..//one")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("records.jsonl, line 4: no record, left out.")
    rows = [line.split(" | ")[:6] for line in lines[3:7]]
    assert rows == [
        ["1 core, 1 busy process, usual order", "all 1", "1", "1", "7", "0"],
        ["2 cores, no load, random order", "all 1", "1", "1", "7", "0"],
        ["2 cores, no load, usual order", "all 1", "3", "2", "21", "1"],
        ["2 cores, no load, usual order", "notebooks/a.ipynb", "1", "1", "7", "0"],
    ]
    assert lines[7] == "1 x notebooks/a.ipynb::Cell 3 (2 cores, no load, usual order)"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--times", "0"], "--times is 0; ask for at least one repetition."),
        (["--load", "-1"], "--load is -1; take 0 to 64 busy processes."),
        (["--cores", "0"], "--cores is 0; this machine can show 1 to "),
        (["--cores", "100000"], "--cores is 100000; this machine can show 1 to "),
        (["--within", "nan"], "--within is nan; give minutes above 0."),
        (["--only", "c"], "There is no notebook named 'c'; take one of a, b, lab_a."),
        (["--folder", "labs"], "labs has no notebooks in notebooks, labs, solutions; name the"),
        (["--log", "a file"], "The log folder a file cannot be written (File exists); name"),
        (["--summary", "."], "has no records.jsonl that can be read (No such file or directory)"),
        (["--summary", ".", "--times", "3"], "--summary runs nothing: leave the other options out"),
    ],
)
def test_what_cannot_be_asked(
    course: Path, monkeypatch, capsys, words: list[str], sentence: str
) -> None:
    if words[0] == "--cores" and not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot limit a process's cores")
    monkeypatch.chdir(course)
    Path("a file").touch()
    base = [] if words[0] in ("--summary", "--folder") else ["--folder", "."]
    assert prove.main([*base, *words]) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and len(shown.err.splitlines()) == 1 and not shown.out


def test_a_system_without_affinity_and_a_damaged_notebook(course, monkeypatch, capsys) -> None:
    (course / "labs" / "lab_a.ipynb").write_text("{")
    log = ["--folder", str(course), "--log", str(course.parent / "log")]
    assert prove.main(log) == 2
    assert "lab_a.ipynb cannot be read as a notebook; build it again." in capsys.readouterr().err
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert prove.main([*log, "--cores", "1"]) == 2
    assert "cannot limit a process's cores: leave --cores out." in capsys.readouterr().err
