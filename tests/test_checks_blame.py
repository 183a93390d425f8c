"""An exception of the learner's code in one sentence, with the learner's own line."""

import gc
import sys
import weakref

import pytest
import torch

from utils.checks import engine, exercise, judge

KEY = "07.1"


class Heavy:
    pass


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(engine, "EXERCISES", {})
    monkeypatch.setattr(engine, "_load_labs", lambda: None)
    exercise(KEY, "call it")(lambda answer: f"{answer(3)}")


def adds_none(x):
    y = None
    return x + y


def endless_recursion(x):
    return endless_recursion(x) + 1


def asks_for_too_much(x):
    return x.nothing


def asks_torch(x):
    return torch.ones(2) @ torch.ones(3)


def unknown_to_torch(x):
    return torch.empty(2, device="meta").item()


def not_for_sparse_tensors(x):
    return torch.eye(2).to_sparse().sort()


def leaves(x):
    sys.exit("bye")


def interrupts_itself(x):
    raise KeyboardInterrupt


def shouts(x):
    raise ValueError("very " * 1_000_000 + "\nlong 0x7f12345678ab")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (adds_none, "TypeError: unsupported operand type(s) for +: 'int' and 'NoneType' (line 3 of "
         "your function: `return x + y`)."),
        (endless_recursion, "RecursionError: maximum recursion depth exceeded"),
        (asks_for_too_much, "AttributeError: 'int' object has no attribute 'nothing' (line 2"),
        (asks_torch, "(line 2 of your function: `return torch.ones(2) @ torch.ones(3)`)."),
        (unknown_to_torch, "(line 2 of your function: `return torch.empty(2, device="),
        (not_for_sparse_tensors, "NotImplementedError: Could not run 'aten::sort"),
        (leaves, "SystemExit: bye (line 2 of your function: `sys.exit("),
        (interrupts_itself, "KeyboardInterrupt (line 2 of your function: `raise Keyboard"),
        (shouts, "very ... (cut) (line 2 of your function: `raise ValueError("),
    ],
)  # fmt: skip
def test_raised_shows_the_learners_own_line(answer, text):
    outcome = judge(KEY, answer)
    assert outcome.status == "raised"
    assert outcome.message.startswith("07.1 call it: your code raised ")
    assert text in outcome.message
    assert len(outcome.message) < 700 and "\n" not in outcome.message


def test_an_unreadable_exception_message_is_said_to_be_one():
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    def answer(x):
        raise Mute

    assert "raised Mute: its message could not be read" in judge(KEY, answer).message


def test_nothing_of_a_failed_answer_stays_in_memory():
    heavy = []

    def answer(x):
        local = Heavy()
        heavy.append(weakref.ref(local))
        raise ValueError("after making something heavy")

    gc.disable()
    try:
        judge(KEY, answer)
        assert heavy[0]() is None
    finally:
        gc.enable()


def test_code_from_nowhere_is_shown_without_its_line():
    scope = {}
    exec("def answer(x):\n    return x / 0", scope)
    assert judge(KEY, scope["answer"]).message.endswith("zero (line 2 of your function).")
