"""The outcomes of a check, in words, for every way an answer can go, and hints."""

import random
import sys
import warnings

import pytest
import torch

from utils.checks import check, close_to, engine, exercise, hint, judge, require
from utils.checks.helpers import COLUMNS, wrapped

KEY, STUCK = "07.1", ' Stuck? hint("07.1")'
LOAD_LABS = engine._load_labs


class Broken:
    def __call__(self, x):
        return 1

    def __repr__(self):
        raise RuntimeError("no words")


@pytest.fixture(autouse=True)
def registry(monkeypatch, tmp_path):
    """Only the exercise of this file, and a progress file of its own."""
    monkeypatch.setattr(engine, "EXERCISES", {})
    monkeypatch.setattr(engine, "_load_labs", lambda: None)
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    hints = ["Add it to itself.", "It is 2 * x."]

    @exercise(KEY, "double it", hints=hints, seconds=20, lab="lab_07_doubling")
    def judge_double(answer):
        got = answer(3)
        likely = "you squared it" if close_to(got, 9) else ""
        require(close_to(got, 6), "The double of 3 is wrong.", expected=6, got=got, likely=likely)
        return f"The double of 3 is {got}."


def stub(x):
    raise NotImplementedError("write this")


def calls_a_stub(x):
    return 2 * stub(x)


def test_passed_shows_the_numbers():
    assert judge(KEY, lambda x: 2 * x).message == "07.1 double it: passed. The double of 3 is 6."


@pytest.mark.parametrize("answer", [None, ..., (None, ...), {"a": None}, stub, calls_a_stub])
def test_not_attempted(answer):
    outcome = judge(KEY, answer)
    assert outcome.status == "not attempted"
    assert outcome.message.startswith("07.1 double it: not attempted yet. Put your answer")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda x: x + 1, "Expected 6, got 4."),
        (lambda x: x * x, "Expected 6, got 9. Likely mistake: you squared it."),
        (lambda x: float("nan"), "Expected 6, got nan."),
        (lambda x: None, "Expected 6, got None."),
        (Broken(), "Expected 6, got 1."),
    ],
)
def test_not_yet_says_what_was_expected(answer, text):
    outcome = judge(KEY, answer)
    assert outcome.status == "not yet"
    assert outcome.message == f"07.1 double it: not yet. The double of 3 is wrong. {text}{STUCK}"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (7, "7 (type int): it raised TypeError: 'int' object is not callable."),
        ([1, None], "[1, None] (type list): it raised TypeError: 'list' object is not callable."),
    ],
)
def test_an_answer_of_the_wrong_type_is_not_yet_right(answer, text):
    outcome = judge(KEY, answer)
    assert outcome.status == "not yet"
    begin = "07.1 double it: not yet. The check could not use this answer, "
    assert outcome.message == f"{begin}{text}{STUCK}"


def test_printing_is_shown_after_the_verdict_and_cut(capsys):
    def answer(x):
        for number in range(100_000):
            print("line", number, "\x1b[31m")
        print("to stderr", file=sys.stderr)
        warnings.warn("noise", stacklevel=1)
        return 2 * x

    check(KEY, answer)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:3] == [
        "07.1 double it: passed. The double of 3 is 6.",
        "Your code printed during this check:",
        "  | line 0  [31m",
    ]
    assert lines[-2:] == ["  | line 19  [31m", "  | (the rest is not shown)"]
    assert len(lines) == 23 and err == ""


def test_what_is_printed_ends_its_lines_between_words(capsys):
    """JupyterLab breaks a line that is too long for the page anywhere, in mid-word too."""
    long = "x" * (COLUMNS + 1)
    text = "  two  spaces, a half-done-word and `a(b)` " * 8 + f"and {long} the end\nnew line"
    exercise("98.1", "long", [text])(lambda answer: text)
    try:
        message = judge("98.1", 1).message
        for ask, said in ((check, message), (hint, f"98.1 hint 1 of 1: {text}")):
            ask("98.1", 1)
            out = capsys.readouterr().out
            assert out.split() == said.split() and "\nnew line\n" in out
            assert [line for line in out.splitlines() if len(line) > COLUMNS] == [long]
    finally:
        del engine.EXERCISES["98.1"]
    assert wrapped("a  short - line\n\n  | x") == "a  short - line\n\n  | x"


def test_random_numbers_are_the_same_each_time_and_untouched_outside():
    seen = []
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), random.getstate()
    for _ in range(2):
        judge(KEY, lambda x: seen.append((torch.rand(1).item(), random.random())))
    assert seen[0] == seen[1]
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_an_unknown_key_lists_the_known_ones():
    for ask in (lambda: check("7.1", 6), lambda: hint("7.1"), lambda: judge("7.1", 6)):
        with pytest.raises(ValueError, match=r"no exercise '7.1'; the known ones are: 07.1\."):
            ask()


def test_hints_then_the_solution(capsys):
    hint(KEY)
    hint(KEY, 2)
    hint(KEY, 3)
    assert capsys.readouterr().out.splitlines() == [
        "07.1 hint 1 of 2: Add it to itself.",
        'Not enough? hint("07.1", 2)',
        "07.1 hint 2 of 2: It is 2 * x.",
        "07.1 has no hint 3; a worked solution is in solutions/lab_07_doubling.ipynb.",
    ]
    with pytest.raises(ValueError, match="counted from 1; 0 is not one"):
        hint(KEY, 0)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"hints": "one text"}, "must be a list of sentences"),
        ({"seconds": 0}, "time limit above 0 seconds, got 0"),
        ({}, "registered twice: .*judge_double"),
    ],
)
def test_a_wrong_registration_is_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        exercise(KEY, "double it", **wrong)(lambda answer: "")


def test_labs_are_found_in_the_package_when_they_are_needed(monkeypatch, tmp_path):
    lab = "from utils.checks import exercise\nexercise('99.1', 'one')(lambda answer: answer)\n"
    (tmp_path / "lab_99.py").write_text(lab)
    package = sys.modules["utils.checks"]
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    monkeypatch.setattr(engine, "_load_labs", LOAD_LABS)
    monkeypatch.delitem(sys.modules, "utils.checks.lab_99", raising=False)
    assert judge("99.1", "found").message == "99.1 one: passed. found"
    monkeypatch.delitem(sys.modules, "utils.checks.lab_99")
