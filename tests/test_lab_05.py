"""Lab 05's checks: the solution passes, the stub is not attempted, wrong answers are named."""

import gc
import time
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from tests.lab_checks import LabChecks
from tests.other_answers_05 import OTHERS
from tests.wrong_answers_05 import WRONG
from tests.wrong_builders_05 import LAB, right
from utils.checks import engine
from utils.checks.engine import EXERCISES, judge

ANSWERS = {
    "05.1": "policy",
    "05.2": "choose_options",
    "05.3": "run_program",
    "05.4": "limited_hooks",
    "05.5": "cheapest_choice",
}


@pytest.fixture(autouse=True)
def one_thread():
    """As the lab does: two threads that share a busy core make small operations very slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestLab05(LabChecks):
    lab, answers, right, wrong = LAB, ANSWERS, right, WRONG


@pytest.mark.parametrize("key, answer", OTHERS)
def test_another_right_answer_passes(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


def endless(*_):
    while True:
        time.sleep(0.001)


LOOPS = [("05.1", endless), ("05.2", endless), ("05.3", endless), ("05.5", endless),
         ("05.4", lambda *_: (endless, endless))]  # fmt: skip


@pytest.mark.parametrize("key, answer", LOOPS)
def test_a_loop_ends_and_leaves_nothing_behind(key, answer, monkeypatch):
    resize = torch.UntypedStorage.resize_
    monkeypatch.setitem(engine.EXERCISES, key, replace(EXERCISES[key], seconds=1.0))
    outcome = judge(key, answer)
    assert outcome.status == "stopped" and "left behind" not in outcome.message
    assert gc.isenabled() and torch.is_grad_enabled()
    assert torch.UntypedStorage.resize_ is resize and not _get_current_dispatch_mode_stack()


def spoiling(key):
    """A right answer that switches gradients off and changes the default dtype for good."""

    def answer(*arguments):
        result = right[ANSWERS[key]](*arguments)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        return result

    return answer


@pytest.mark.parametrize("key", ["05.3", "05.4"])
def test_an_answer_that_spoils_torch_is_told_so_and_the_next_check_is_sound(key):
    outcome = judge(key, spoiling(key))
    assert outcome.status in ("not yet", "raised"), outcome.message
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert judge(key, right[ANSWERS[key]]).status == "passed"
