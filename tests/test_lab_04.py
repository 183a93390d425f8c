"""Lab 04's checks: the solution passes, the stub is not attempted, wrong answers are named."""

import pytest

from tests.lab_source import stub_keys
from tests.wrong_answers_04 import WRONG
from tests.wrong_builders_04 import LAB, right
from utils.checks.engine import EXERCISES, judge

ANSWERS = {
    "04.1": "make_replay",
    "04.2": "checkpoint_module",
    "04.3": "cut_chain",
    "04.4": "parallel_chain_bytes",
    "04.5": "segmented_loss",
}


def test_every_exercise_of_the_lab_has_a_judge_and_hints():
    judge("04.1", None)  # loads the labs
    ours = {key for key, each in EXERCISES.items() if each.lab == LAB}
    assert stub_keys(LAB) == sorted(ours) == list(ANSWERS)
    assert all(len(EXERCISES[key].hints) >= 2 for key in ours)


@pytest.mark.parametrize("key", ANSWERS)
def test_the_solution_passes(key):
    outcome = judge(key, right[ANSWERS[key]])
    assert outcome.status == "passed", outcome.message


@pytest.mark.parametrize("key", ANSWERS)
def test_the_stub_is_not_attempted(key):
    def stub(*_, **__):
        raise NotImplementedError("your turn")

    assert judge(key, stub).status == "not attempted"


def test_a_backward_that_is_still_a_stub_is_not_attempted():
    class RunTwice(right["RunTwice"]):
        @staticmethod
        def backward(ctx, *gradients):
            raise NotImplementedError("your turn")

    def checkpoint_module(module, *args, **kwargs):
        values = (*args, *kwargs.values())

        def run(*values):
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            return module(*values[: len(args)], **named)

        return RunTwice.apply(run, len(values), *values, *module.parameters())

    assert judge("04.2", checkpoint_module).status == "not attempted"


@pytest.mark.parametrize("key, answer, words", WRONG, ids=[f"{k} {w}" for k, _, w in WRONG])
def test_a_wrong_answer_is_rejected_by_name(key, answer, words):
    outcome = judge(key, answer)
    assert outcome.status == "not yet", outcome.message
    assert words in outcome.message


def test_every_exercise_has_at_least_eight_wrong_answers_with_messages_of_their_own():
    for key in ANSWERS:
        assert len({words for k, _, words in WRONG if k == key}) >= 8
