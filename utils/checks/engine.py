"""Check an answer in words: exercise, judge, check, hint, progress.

How it works: a lab's judges live in `utils/checks/lab_XX.py`, found and imported at the first
question. Each is a function that gets the answer and returns a sentence with the numbers, or
raises `NotYet`; `@exercise` registers it. `judge` runs it under a time limit (limits.py), sealed
off (quiet.py), and puts whatever happened into one of five outcomes; the sentence depends on the
answer alone, so a notebook's stored output can be compared strictly. `check` prints it and stores
the status (state.py).
Left out: points, deadlines, a network.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from utils.checks import state
from utils.checks.blame import is_placeholder, verdict_on
from utils.checks.helpers import NotYet, wrapped
from utils.checks.limits import TimeLimit, run_limited
from utils.checks.quiet import Printed, sealed

Judge = Callable[[Any], str]


@dataclass(frozen=True)
class Exercise:
    """One exercise: `seconds` is the time limit, `lab` names the notebook it stands in."""

    key: str
    title: str
    judge: Judge
    hints: tuple[str, ...]
    seconds: float
    lab: str


@dataclass(frozen=True)
class Outcome:
    """What a check says: `status` is one of the five below, `message` the sentence for a reader.

    "passed", "not yet", "not attempted", "raised" (an exception of the learner's code), "stopped"
    (the time limit). `printed` holds the first lines that the answer printed meanwhile.
    """

    status: str
    message: str
    printed: tuple[str, ...] = ()


EXERCISES: dict[str, Exercise] = {}


def exercise(
    key: str, title: str, hints: Sequence[str] = (), seconds: float = 20.0, lab: str = ""
) -> Callable[[Judge], Judge]:
    """Register a judge under `key`; it is returned unchanged.

    `seconds` is wall time, also on a busy machine: allow at least ten times what the solution
    takes. Raises ValueError for a key that another judge has, and for hints that are no list.
    """
    if isinstance(hints, str) or not all(isinstance(hint, str) for hint in hints):
        raise ValueError(f"The hints of exercise {key} must be a list of sentences.")
    if not seconds > 0:
        raise ValueError(f"Exercise {key} needs a time limit above 0 seconds, got {seconds}.")

    def register(judge: Judge) -> Judge:
        other = EXERCISES.get(key)
        if other and _name(other.judge) != _name(judge):  # the same name: the lab was reloaded
            raise ValueError(f"Exercise {key} is registered twice: {_name(other.judge)}.")
        EXERCISES[key] = Exercise(key, title, judge, tuple(hints), seconds, lab)
        return judge

    return register


def judge(key: str, answer: Any) -> Outcome:
    """Judge an answer without printing or storing anything.

    Nothing that the answer does is raised, except Ctrl-C, which passes through. Raises ValueError
    for a key that no exercise has.
    """
    asked = _find(key)
    if is_placeholder(answer):
        return _outcome(asked, "not attempted", "")
    printed = Printed()
    with sealed(printed):
        ended = run_limited(lambda: _verdict(asked, answer), asked.seconds)
    if ended.stopped:
        status, text = "stopped", _stopped_text(asked, ended.left_behind)
    elif ended.error is not None:  # an error in this folder, not in the answer
        raise ended.error
    else:
        status, text = ended.value
    return _outcome(asked, status, text, tuple(printed.lines()))


def check(key: str, answer: Any) -> None:
    """Print what `judge` says of an answer and store the status; raises what `judge` raises."""
    outcome = judge(key, answer)
    print(wrapped(outcome.message))
    if outcome.printed:
        print("Your code printed during this check:")
        print("\n".join(f"  | {line}" for line in outcome.printed))
    stored = outcome.status if outcome.status in state.STATUSES else state.NOT_YET
    trouble = state.record(key, stored)
    if trouble:
        print(trouble)


def hint(key: str, number: int = 1) -> None:
    """Print a hint: 1 is the shortest. Past the last one, say where the solution is."""
    asked = _find(key)
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"Hints are counted from 1; {number!r} is not one.")
    if number <= len(asked.hints):
        print(wrapped(f"{key} hint {number} of {len(asked.hints)}: {asked.hints[number - 1]}"))
        if number < len(asked.hints):
            print(f'Not enough? hint("{key}", {number + 1})')
    else:
        place = f"solutions/{asked.lab}.ipynb" if asked.lab else "the folder solutions/"
        print(f"{key} has no hint {number}; a worked solution is in {place}.")


def progress(lab: str = "") -> None:
    """Print the exercises of one lab ("lab_01"), or of all: passed, not yet or not attempted."""
    _load_labs()
    done, trouble = state.read()
    chosen = [exercise for exercise in EXERCISES.values() if exercise.lab.startswith(lab)]
    known = sorted(chosen, key=lambda exercise: (exercise.lab, exercise.key))
    num_passed = sum(done.get(exercise.key) == state.PASSED for exercise in known)
    print(f"{num_passed} of {len(known)} exercises passed")
    lab = ""
    for each in known:
        if each.lab != lab:
            print(each.lab)
            lab = each.lab
        print(f"  {each.key:<6} {done.get(each.key, state.NOT_ATTEMPTED):<14} {each.title}")
    if trouble:
        print(trouble)


def _verdict(asked: Exercise, answer: Any) -> tuple[str, str]:
    try:
        return "passed", asked.judge(answer)
    except TimeLimit:
        raise
    except NotYet as wrong:
        return wrong.status, str(wrong)
    except BaseException as error:  # also SystemExit, and a KeyboardInterrupt that code raised
        return verdict_on(error, asked.judge, answer)


def _outcome(asked: Exercise, status: str, text: str, printed: tuple[str, ...] = ()) -> Outcome:
    begin = {
        "passed": "passed.",
        "not yet": "not yet.",
        "not attempted": "not attempted yet. Put your answer in place of the placeholder and run "
        "the cell again.",
        "raised": "your code raised",
        "stopped": "stopped.",
    }[status]
    help_text = f'Stuck? hint("{asked.key}")' if asked.hints else ""
    parts = [f"{asked.key} {asked.title}:", begin, text, help_text * (status != "passed")]
    return Outcome(status, " ".join(part for part in parts if part), printed)


def _stopped_text(asked: Exercise, left_behind: bool) -> str:
    text = (
        f"Your code was still running after {asked.seconds:g} s, the time limit of this exercise. "
        "Likely mistake: a loop that never ends, or far more work than was asked for."
    )
    if left_behind:
        text += (
            " It is inside one long call (such as sleep) that cannot be interrupted and was left "
            "behind in the background: restart the kernel to be rid of it at once."
        )
    return text


def _find(key: str) -> Exercise:
    _load_labs()
    if key not in EXERCISES:
        known = ", ".join(sorted(EXERCISES)) or "none"
        raise ValueError(f"There is no exercise {key!r}; the known ones are: {known}.")
    return EXERCISES[key]


def _load_labs() -> None:
    for module in pkgutil.iter_modules(importlib.import_module("utils.checks").__path__):
        if module.name.startswith("lab_"):
            importlib.import_module(f"utils.checks.{module.name}")


def _name(judge: Judge) -> str:
    return f"{judge.__module__}.{judge.__qualname__}"
