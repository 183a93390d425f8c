"""What is tested of every lab's checks: solution, stub, wrong answers, hints.

A test module subclasses `LabChecks` as `Test...` and fills in its lab; five tests then run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from tests.lab_source import stub_keys
from utils.checks.engine import EXERCISES, judge

Wrong = Sequence[tuple[str, Any, str]]  # exercise, answer, words that its message must have


class LabChecks:
    """The five tests; `right` maps a function's name to the solution's function."""

    lab: ClassVar[str]  # the source's name without its ending
    answers: ClassVar[Mapping[str, str]]  # exercise -> name of its function
    right: ClassVar[Mapping[str, Any]]
    wrong: ClassVar[Wrong]
    least_wrong: ClassVar[int] = 8  # different messages of each exercise

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """pytest calls it on the subclass: one test for each answer of that lab."""
        lab = metafunc.cls
        if "words" in metafunc.fixturenames:
            ids = [f"{key} {words}" for key, _, words in lab.wrong]
            metafunc.parametrize("key, answer, words", lab.wrong, ids=ids)
        elif "key" in metafunc.fixturenames:
            metafunc.parametrize("key", lab.answers)

    def test_every_exercise_of_the_lab_has_a_judge_and_hints(self):
        judge(next(iter(self.answers)), None)  # loads the labs
        ours = {key for key, each in EXERCISES.items() if each.lab == self.lab}
        assert stub_keys(self.lab) == sorted(ours) == list(self.answers)
        assert all(len(EXERCISES[key].hints) >= 2 for key in ours)

    def test_the_solution_passes(self, key):
        outcome = judge(key, self.right[self.answers[key]])
        assert outcome.status == "passed", outcome.message

    def test_the_stub_is_not_attempted(self, key):
        def stub(*_, **__):
            raise NotImplementedError("your turn")

        assert judge(key, stub).status == "not attempted"

    def test_a_wrong_answer_is_rejected_by_name(self, key, answer, words):
        outcome = judge(key, answer)
        assert outcome.status == "not yet", outcome.message
        assert words in outcome.message

    def test_every_exercise_has_enough_wrong_answers_with_messages_of_their_own(self):
        for key in self.answers:
            assert len({words for k, _, words in self.wrong if k == key}) >= self.least_wrong
