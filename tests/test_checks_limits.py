"""Answers that would run for ever, print for ever, or are interrupted by the learner.

No test measures time: a limit that fails to work makes the test hang or the status wrong.
"""

import _thread
import dataclasses
import threading
import time

import pytest
import torch

from utils.checks import check, engine, exercise, judge, limits, state
from utils.checks.limits import run_limited

KEY = "07.1"


@pytest.fixture(autouse=True)
def short_limits(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "POLITE_S", 0.2)
    monkeypatch.setattr(limits, "FIRM_S", 1.0)
    monkeypatch.setattr(engine, "EXERCISES", {})
    monkeypatch.setattr(engine, "_load_labs", lambda: None)
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    exercise(KEY, "run", seconds=0.2)(lambda answer: str(answer()))


def endless():
    while True:
        pass


def sleeps_and_tidies_up():
    try:
        while True:
            time.sleep(0.01)
    finally:
        print("tidied up")


def swallows_everything():
    while True:
        try:
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def swallows_twice():
    while True:
        try:
            swallows_everything()
        except BaseException:
            time.sleep(0.01)


def answers_too_late():
    try:
        endless()
    except BaseException:
        return 42


def floods():
    while True:
        print("again and again")


@pytest.mark.parametrize(
    "answer",
    [endless, sleeps_and_tidies_up, swallows_everything, swallows_twice, answers_too_late, floods],
)
def test_a_runaway_answer_is_stopped(answer):
    before = set(threading.enumerate())
    outcome = judge(KEY, answer)
    assert outcome.status == "stopped"
    assert outcome.message == (
        "07.1 run: stopped. Your code was still running after 0.2 s, the time limit of this "
        "exercise. Likely mistake: a loop that never ends, or far more work than was asked for."
    )
    assert set(threading.enumerate()) <= before
    assert outcome.printed == {
        sleeps_and_tidies_up: ("tidied up",),
        floods: ("again and again",) * 20 + ("(the rest is not shown)",),
    }.get(answer, ())


def test_one_long_call_is_left_behind_and_said_to_be():
    outcome = judge(KEY, lambda: time.sleep(1000))
    assert outcome.status == "stopped"
    assert "left behind in the background: restart the kernel" in outcome.message
    assert judge(KEY, lambda: 3).message == "07.1 run: passed. 3"


def test_a_thread_left_behind_ends_quietly_when_its_call_returns(monkeypatch, capfd):
    monkeypatch.setattr(limits, "FIRM_S", 0.1)
    gate, before = threading.Lock(), set(threading.enumerate())
    gate.acquire()
    assert run_limited(gate.acquire, 0.05).left_behind
    (left,) = set(threading.enumerate()) - before
    gate.release()
    left.join(10)
    assert not left.is_alive()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("answer", [endless, swallows_everything])
def test_the_learners_interruption_passes_through_and_nothing_is_stored(monkeypatch, answer):
    slow = dataclasses.replace(engine.EXERCISES[KEY], seconds=1000)
    monkeypatch.setitem(engine.EXERCISES, KEY, slow)
    started, stopped = threading.Event(), threading.Event()

    def tells_then_runs():
        started.set()
        answer()

    def press_ctrl_c():
        """Again after a while: Python may drop an interruption, e.g. inside a finaliser."""
        started.wait()
        while not stopped.is_set():
            _thread.interrupt_main()
            stopped.wait(10)

    before = set(threading.enumerate())
    presser = threading.Thread(target=press_ctrl_c)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        check(KEY, tells_then_runs)
    stopped.set()
    presser.join()
    assert set(threading.enumerate()) <= before
    assert state.read() == ({}, "")
    assert judge(KEY, lambda: 3).status == "passed"


def test_torch_settings_of_the_caller_hold_in_the_answer():
    num_threads = torch.get_num_threads()
    with torch.no_grad():
        inside = run_limited(lambda: (torch.is_grad_enabled(), torch.get_num_threads()), 10)
    assert inside.value == (False, num_threads)
    assert run_limited(torch.is_grad_enabled, 10).value is True


def test_gradients_and_saved_tensor_hooks_work_inside_an_answer():
    def answer():
        packed = []
        x = torch.ones(3, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
            (x * x).sum().backward()
        return len(packed), x.grad.tolist()

    assert run_limited(answer, 10).value == (2, [2.0, 2.0, 2.0])


def test_an_error_comes_back_with_its_traceback():
    ended = run_limited(lambda: 1 / 0, 10)
    assert isinstance(ended.error, ZeroDivisionError) and ended.error.__traceback__
