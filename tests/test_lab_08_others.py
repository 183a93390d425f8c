"""Other right answers to lab 08 pass; errors of a learner's code are told with their line."""

import pytest

from tests import other_answers_08 as others
from tests import other_hooks_08 as hooks
from tests.wrong_builders_08 import mutant
from utils.checks.engine import judge

OTHERS = [
    ("08.1", hooks.by_objects),
    ("08.1", hooks.by_multi_hooks),
    ("08.1", hooks.last_one_stays),
    ("08.2", hooks.Ahead),
    ("08.2", hooks.EarlyBackward),
    ("08.3", others.in_hooks),
    ("08.3", others.loss_divided),
    ("08.4", others.by_mesh),
    ("08.4", others.by_our_groups),
    ("08.5", others.in_fractions),
]


@pytest.mark.parametrize("key, answer", OTHERS, ids=[a.__name__ for _, a in OTHERS])
def test_another_right_answer_passes(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


RAISED = [
    ("08.1", ("waiting = set()", "waiting = []"), "no attribute 'update'"),
    ("08.3", ("unit.parameters]", "unit.weights]"), "no attribute 'weights'"),
    ("08.4", ("return gather, mean", "return mean, gather"), "do not make"),
    ("08.5", ("job.layer_values //", "job.layer_sizes //"), "no attribute 'layer_sizes'"),
]


@pytest.mark.parametrize("key, change, words", RAISED, ids=[key for key, *_ in RAISED])
def test_what_an_answer_raises_is_told_with_its_line(key, change, words):
    outcome = judge(key, mutant(key, *change))
    assert outcome.status == "raised", outcome.message
    assert words in outcome.message and "line" in outcome.message


@pytest.mark.parametrize("key", ["08.1", "08.2", "08.3", "08.4", "08.5"])
def test_a_result_in_place_of_the_function_is_refused(key):
    outcome = judge(key, 3)
    assert outcome.status == "not yet" and "pass the function itself" in outcome.message
