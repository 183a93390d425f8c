"""Lab 08's checks: the solution passes, the stub is not attempted, wrong answers are named."""

import pytest

from tests.lab_source import stub_keys
from tests.wrong_builders_08 import ANSWERS, LAB, right
from tests.wrong_hooks_08 import AHEADS, FREES
from tests.wrong_hybrids_08 import HYBRIDS
from tests.wrong_micro_08 import MICRO
from tests.wrong_pays_08 import PAYS
from utils.checks.engine import EXERCISES, judge

LISTS = {"08.1": FREES, "08.2": AHEADS, "08.3": MICRO, "08.4": HYBRIDS, "08.5": PAYS}
WRONG = [(key, answer, words) for key, wrong in LISTS.items() for answer, words in wrong]


def test_every_exercise_of_the_lab_has_a_judge_and_hints():
    judge("08.1", None)  # loads the labs
    ours = {key for key, each in EXERCISES.items() if each.lab == LAB}
    assert stub_keys(LAB) == sorted(ours) == list(ANSWERS) == list(LISTS)
    assert all(len(EXERCISES[key].hints) >= 2 for key in ours)


@pytest.mark.parametrize("key", ANSWERS)
def test_the_solution_passes(key):
    outcome = judge(key, right[ANSWERS[key]])
    assert outcome.status == "passed", outcome.message


@pytest.mark.parametrize("key", ANSWERS)
def test_the_stub_is_not_attempted(key):
    def stub(*_):
        raise NotImplementedError("your turn")

    assert judge(key, stub).status == "not attempted"


@pytest.mark.parametrize("key, answer, words", WRONG, ids=[f"{k} {w}" for k, _, w in WRONG])
def test_a_wrong_answer_is_rejected_by_name(key, answer, words):
    outcome = judge(key, answer)
    assert outcome.status == "not yet", outcome.message
    assert words in outcome.message


def test_every_exercise_has_at_least_eight_wrong_answers_with_messages_of_their_own():
    for wrong in LISTS.values():
        assert len({words for _, words in wrong}) >= 8
