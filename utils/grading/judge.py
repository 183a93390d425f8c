"""One exercise of one submission, in a process forked for it: slice, load, check, report.

How it works: the process has been a warden, so the course and torch are loaded and nobody else's
code has run in it. It reads the submission, confines itself, says what is suspicious in the text
before any of it runs, and then what the course's check says. Reports are lines of JSON with a
secret of this process: whoever writes to the pipe without it is noticed (warden.py).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.checks import engine, on_ranks
from utils.checks.helpers import one_line
from utils.grading import apart, witness
from utils.grading.answers import Answer, Failed
from utils.grading.cage import confine, die_with_parent, limit
from utils.grading.course import Lab
from utils.grading.kinds import kind_of
from utils.grading.notebook import SubmissionError, code_cells
from utils.grading.on_ranks import OnRank
from utils.grading.screen import suspicions
from utils.grading.slices import slice_for

PASSED, NOT_YET, NOT_ATTEMPTED = "passed", "not yet", "not attempted"
MAX_LOOKS = 12
RANKS_PART = 4  # a check may start ranks several times
ENGINE_MARGIN_S = 1.0  # the check's own limit strikes first: its message says more


@dataclass(frozen=True)
class Request:
    """What a warden is asked: an exercise, a copy of the file, a scratch folder, limits."""

    key: str
    file: str
    folder: str
    time_limit_s: float
    memory_bytes: int
    file_bytes: int
    kind: str = ""  # how to judge; "" is the exercise's own way


class Reporter:
    """Writes lines of JSON that carry a secret."""

    def __init__(self, handle: int) -> None:
        self._handle, self._secret = handle, secrets.token_hex(16)

    def send(self, looks: list[str], **words: Any) -> None:
        """One line; of what is suspicious the first few, for a pipe has an end."""
        looks = [one_line(look, 120) for look in looks[:MAX_LOOKS]]
        line = json.dumps({"secret": self._secret, "looks": looks, **words}) + "\n"
        os.write(self._handle, line.encode())


def run(request: Request, lab: Lab, handle: int) -> None:
    """Judge and report; called in a process that ends when it returns."""
    reporter, folder = Reporter(handle), Path(request.folder)
    die_with_parent()
    limit(request.memory_bytes, request.file_bytes, 4 * request.time_limit_s + 60)
    confine(folder)
    os.chdir(folder)
    asked = next(each for each in lab.exercises if each.key == request.key)
    try:
        found = slice_for(asked, lab, code_cells(Path(request.file).read_bytes()))
    except SubmissionError as error:
        reporter.send(looks=[], status=NOT_YET, message=str(error))
        return
    if not found.statements:
        status = NOT_YET if found.is_wrong else NOT_ATTEMPTED
        reporter.send(looks=[], status=status, message=found.reason)
        return
    reporter.send(looks=suspicions(found.statements, lab))
    known = _with_limits(engine._find(request.key), request.time_limit_s)
    answer = Answer(asked.name, found.statements)
    judged = WAYS[request.kind or kind_of(request.key)](known, answer, folder, handle)
    reporter.send(looks=judged[1], status=judged[0].status, message=words_of(judged[0], known))


def _with_limits(known: engine.Exercise, time_limit_s: float) -> engine.Exercise:
    """The check's own limit if it is lower; ranks get more time, for a room's machine is busy."""
    seconds = max(1.0, min(known.seconds, time_limit_s) - ENGINE_MARGIN_S)
    engine.EXERCISES[known.key] = known = replace(known, seconds=seconds)
    for method, usual_s in on_ranks.TIMEOUT_S.items():
        on_ranks.TIMEOUT_S[method] = max(usual_s, time_limit_s / RANKS_PART)
    return known


def words_of(outcome: engine.Outcome, known: engine.Exercise) -> str:
    """The first line of the check's message, without the exercise's name and the advice."""
    text = outcome.message.split("\n")[0].removeprefix(f"{known.key} {known.title}: ")
    text = text.removeprefix(f"{outcome.status}. ").split(' Stuck? hint("')[0]
    return "" if outcome.status == NOT_ATTEMPTED else one_line(text)


Judged = tuple[engine.Outcome, list[str]]


def _apart(known: engine.Exercise, answer: Answer, folder: Path, handle: int) -> Judged:
    own = folder / "answer"
    own.mkdir()
    return engine.judge(known.key, apart.start(answer, known, own, handle)), []


def _on_ranks(known: engine.Exercise, answer: Answer, folder: Path, handle: int) -> Judged:
    return engine.judge(known.key, OnRank(known.key, answer)), []


def _inside(known: engine.Exercise, answer: Answer, folder: Path, handle: int) -> Judged:
    judge, before = engine.judge, witness.note()
    try:
        function = answer.load(known.judge)
    except Failed as failed:
        return engine._outcome(known, failed.status, failed.text), []
    outcome = judge(known.key, function)
    looks = witness.changes(before)
    if outcome.status == PASSED and judge(known.key, _do_nothing).status == PASSED:
        looks.append("after this answer, one that does nothing passes as well")
    return outcome, looks


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    """The answer that no check may accept."""


WAYS: dict[str, Callable[[engine.Exercise, Answer, Path, int], Judged]] = {
    "apart": _apart,
    "ranks": _on_ranks,
    "inside": _inside,
}
