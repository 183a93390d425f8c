"""Which mistake leads to which waits in lab 09's schedule.

How it works: each mistake is a change to the list of right waits, or another list; an answer whose
tasks begin at the same moments gets its name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from utils.checks.truth_09_waits import (
    CASES,
    FILLED,
    USED,
    Case,
    Wait,
    waits_of,
    with_waits,
)
from utils.simulate import Task, Timeline, simulate

Change = Callable[[Case, list[Wait]], list[Wait]]


def _last_use_only(case: Case, waits: list[Wait]) -> list[Wait]:
    """Of several uses that a filling must wait for, only the one issued last."""
    return _first_use_only(case, waits[::-1])


def _first_use_only(case: Case, waits: list[Wait]) -> list[Wait]:
    """Of several uses that a filling must wait for, only the first."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for wait in waits:
        if wait.kind == USED and (wait.task, wait.buffer) in seen:
            continue
        seen.add((wait.task, wait.buffer))
        kept.append(wait)
    return kept


def _one_after_another(case: Case, waits: list[Wait]) -> list[Wait]:
    names = [task.name for task in case.tasks]
    return [Wait(b, a, USED, "") for a, b in itertools.pairwise(names)]


def _neighbour(case: Case, waits: list[Wait]) -> list[Wait]:
    """A gather waits for the last layer that was issued, whatever its buffer."""
    return [*waits, *_last_issued(case, lambda t: t.name.startswith("gather"),
                                  lambda t: t.stream == "compute")]  # fmt: skip


def _every_message(case: Case, waits: list[Wait]) -> list[Wait]:
    return [*waits, *_last_issued(case, lambda t: t.stream == "compute",
                                  lambda t: t.stream != "compute")]  # fmt: skip


def _one_buffer(case: Case, waits: list[Wait]) -> list[Wait]:
    """Gradient buffers are not told apart: backward waits for the last reduction."""
    return [*waits, *_last_issued(case, lambda t: t.name.startswith("backward"),
                                  lambda t: t.name.startswith("reduce"))]  # fmt: skip


def _neighbour_before(case: Case, waits: list[Wait]) -> list[Wait]:
    """Counted one too far: a filling waits for the use before the one that it must wait for."""
    compute = [task.name for task in case.tasks if task.stream == "compute"]
    kept = [wait for wait in waits if wait.kind == FILLED]
    for wait in waits:
        if wait.kind == USED and wait.needs in compute and compute.index(wait.needs) > 0:
            kept.append(wait._replace(needs=compute[compute.index(wait.needs) - 1]))
    return kept


def _last_issued(
    case: Case, who: Callable[[Task], bool], whom: Callable[[Task], bool]
) -> list[Wait]:
    last, found = "", []
    for task in case.tasks:
        if who(task) and last:
            found.append(Wait(task.name, last, USED, ""))
        last = task.name if whom(task) else last
    return found


def _without(drop: Callable[[Wait], bool]) -> Change:
    return lambda case, waits: [wait for wait in waits if not drop(wait)]


MISTAKES: tuple[tuple[str, Change], ...] = (
    ("no task waits for anything", lambda case, waits: []),
    ("a use waits for what fills its buffer, but a filling must wait, too: until all uses of what "
     "it overwrites are over", _without(lambda w: w.kind == USED)),
    ("fillings wait, but a use must wait for the filling of its buffer",
     _without(lambda w: w.kind == FILLED)),
    ("backward is forgotten: its gathers fill buffers that are in use, too",
     _without(lambda w: w.task.startswith("gather backward") and w.kind == USED)),
    ("gradient buffers are forgotten: a backward fills one that a reduce-scatter may still read",
     _without(lambda w: w.buffer.startswith("gradients") and w.kind == USED)),
    ("a reduce-scatter uses what its backward has filled: it must wait for it",
     _without(lambda w: w.buffer.startswith("gradients") and w.kind == FILLED)),
    ("weight buffers are forgotten: a gather fills one that a layer may still use",
     _without(lambda w: w.buffer.startswith("weights") and w.kind == USED)),
    ("what has been filled may be used several times, by forward and by backward: a filling waits "
     "for all of these uses", _first_use_only),
    ("what has been filled may be used several times, and on several streams, where the use issued "
     "last need not be the last to end: a filling waits for all of these uses", _last_use_only),
    ("the wrong neighbour: a filling waits for the layer before the one whose values it overwrites",
     _neighbour_before),
    ("each task waits for the one before it: nothing overlaps", _one_after_another),
    ("the wrong neighbour: the layer issued last computes in another buffer, a gather need not "
     "wait for it", _neighbour),
    ("a layer waits for messages that it does not need", _every_message),
    ("the gradient buffers are not told apart: backward waits for a reduction of the other one",
     _one_buffer),
)  # fmt: skip


def mistaken(case: Case, change: Change) -> Timeline:
    """The timeline that the mistake leads to."""
    tasks: Sequence[Task] = case.tasks
    return simulate(with_waits(tasks, change(case, waits_of(tasks, case.accesses))))


def name_of(timelines: Sequence[Timeline], place: int) -> str:
    """The mistake that explains the timelines of all cases, or that of one case, or nothing."""

    def explains(change: Change, number: int) -> bool:
        mine = [span.start_s for span in timelines[number].spans]
        return mine == [span.start_s for span in mistaken(CASES[number], change).spans]

    for numbers in (range(len(CASES)), [place]):
        for text, change in MISTAKES:
            if all(explains(change, number) for number in numbers):
                return text
    return ""
