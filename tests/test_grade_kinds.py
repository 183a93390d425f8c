"""Judged apart, an answer gets the verdict and the words that it gets in a notebook."""

import importlib
import itertools
import os
import sys

import pytest

from utils.checks import engine
from utils.grading import plain
from utils.grading.kinds import APART

NUM_EACH = 2  # wrong answers of each exercise; all of them take minutes
WRONG = [case for number in ("03", "04", "05", "06", "07", "09", "10")
         for case in importlib.import_module(f"tests.wrong_answers_{number}").WRONG
         if case[0] in APART and callable(case[1])]  # fmt: skip
SOME = [case for _, cases in itertools.groupby(WRONG, key=lambda case: case[0])
        for case in itertools.islice(cases, NUM_EACH)]  # fmt: skip


class Ready:
    """An answer that is there already."""

    def __init__(self, function):
        self.function = function

    def load(self, judge):
        return self.function


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="grading needs Linux")
@pytest.mark.parametrize(("key", "answer"), [case[:2] for case in SOME])
def test_a_wrong_answer_is_told_the_same_apart(key, answer, tmp_path):
    from utils.grading.apart import start

    near, spare = engine.judge(key, answer), os.dup(1)
    far = engine.judge(key, start(Ready(answer), engine.EXERCISES[key], tmp_path, spare))
    os.close(spare)
    assert (far.status, far.message) == (near.status, near.message)
    assert near.status != "passed"


def test_plain_values_come_back_as_they_went():
    import torch

    from utils.simulate import Task

    values = [None, True, 3, 2.5, float("inf"), "x", b"y", [1, (2, {"a": {3}})], {1: [2]},
              Task("a", "stream", 1.0, ("b",))]  # fmt: skip
    assert plain.from_plain(plain.to_plain(values)) == values
    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T
    again = plain.from_plain(plain.to_plain(tensor))
    assert again.dtype == tensor.dtype and torch.equal(again, tensor)


def test_what_is_not_plain_becomes_an_empty_object_of_that_name():
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit",)

    came = plain.from_plain(plain.to_plain([Bomb(), print]))
    assert [type(each).__name__ for each in came] == ["Bomb", "builtin_function_or_method"]


def test_numbers_that_lie_about_themselves_lose_their_tricks():
    class Yes(float):
        def __eq__(self, other):
            return True

        __hash__ = None

    came = plain.from_plain(plain.to_plain(Yes(2.0)))
    assert type(came) is float and came != 3.0


@pytest.mark.parametrize("data", [
    b"", b"garbage", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04]\x94.", b"\x80\x04}\x94.",
])  # fmt: skip
def test_bytes_that_were_not_written_as_plain_are_refused(data):
    with pytest.raises(plain.Refused):
        plain.from_plain(data)


def test_a_record_is_made_only_of_the_course_s_own_frozen_classes():
    import pickle

    for module, name in (("os", "system"), ("utils.checks.engine", "judge"), ("os", "_exit")):
        with pytest.raises(plain.Refused):
            plain.from_plain(pickle.dumps(("record", module, name, {})))


def test_a_list_that_the_answer_changed_is_changed_for_the_judge():
    import torch

    before, tensor = [1, 2, 3], torch.zeros(2)
    plain.copy_back(before, [9])
    plain.copy_back([tensor], [torch.ones(2)])
    assert before == [9] and tensor.tolist() == [1.0, 1.0]


def test_the_ways_of_a_lab_that_is_not_there_are_not_tried(capsys):
    from utils.grading.ways import main

    assert main(["77"]) == main([]) == 2
    assert capsys.readouterr().err.count("Name labs, of these: 01, 02") == 2
