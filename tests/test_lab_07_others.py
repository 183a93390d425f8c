"""Other right answers to lab 07 pass: other data structures, other moments, other messages."""

import pytest

from tests.other_answers_07 import Views, bill_by_layouts, bill_by_math, in_pieces, with_parameter
from tests.other_steps_07 import (
    Leaving,
    clip_as_torch_does,
    clip_in_numbers,
    reshard_by_value,
    reshard_with_cut,
    taken_at_once,
)
from tests.wrong_builders_07 import mutant
from utils.checks.engine import judge

OTHERS = [
    ("07.1", bill_by_layouts),
    ("07.1", bill_by_math),
    ("07.2", Views),
    ("07.2", in_pieces),
    ("07.2", with_parameter),
    ("07.3", Leaving),
    ("07.3", taken_at_once),
    ("07.4", clip_in_numbers),
    ("07.4", clip_as_torch_does),
    ("07.5", reshard_by_value),
    ("07.5", reshard_with_cut),
]


@pytest.mark.parametrize("key, answer", OTHERS)
def test_another_right_answer_passes(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


def test_a_hook_that_raises_is_told_with_its_line():
    wrong = mutant("07.3", "finished.update(parameters)", "finished.append(parameters)")
    outcome = judge("07.3", wrong)
    assert outcome.status == "raised", outcome.message
    assert "no attribute 'append'" in outcome.message and "of on_gradients" in outcome.message


def test_a_shard_of_the_wrong_size_is_told_with_its_line():
    wrong = mutant("07.2", "-(-sum(sizes) // world_size)", "sum(sizes) // world_size")
    outcome = judge("07.2", wrong)
    assert outcome.status == "raised", outcome.message
    assert "line" in outcome.message
