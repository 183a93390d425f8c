"""Is a buffer overwritten while it is in use? The question every schedule with buffers must answer.

How it works: an `Access` says that a task fills a buffer with something, or uses what it holds. In
a timeline each use needs the last filling of its buffer to be the right one, over before the use
begins, and no other filling to begin before the use is over. To end and to begin at the same moment
is no overlap. `overwrites` says in words what breaks this; an empty list is a safe schedule.

`most_gathered` counts the layers whose weights exist at the same time, for schedules that allocate.
Left out: races that a timeline does not show because its durations happen to keep the order; try
other durations, as the tests do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from utils.simulate.timeline import Timeline


@dataclass(frozen=True)
class Access:
    """A task fills `buffer` with `content` (`writes`), or uses that content."""

    task: str
    buffer: str
    content: str
    writes: bool


def overwrites(timeline: Timeline, accesses: Iterable[Access]) -> list[str]:
    """One sentence for each use that does not find what it needs; none for a safe schedule.

    Raises ValueError for an access by a task that the timeline does not have.
    """
    accesses = list(accesses)
    moments = {
        span.task.name: _Moment(span.start_s, (span.end_s, issued))
        for issued, span in enumerate(timeline.spans)
    }
    unknown = [access.task for access in accesses if access.task not in moments]
    if unknown:
        raise ValueError(f"The timeline has no task {unknown[0]!r}, so it cannot use a buffer.")
    fillings: dict[str, list[Access]] = {}
    for access in accesses:
        if access.writes:
            fillings.setdefault(access.buffer, []).append(access)
    problems = []
    for access in accesses:
        if not access.writes:
            problems += _problems(access, moments, fillings.get(access.buffer, []))
    return problems


def most_gathered(timeline: Timeline) -> int:
    """Layers gathered at the same time: from the gather's start to the end of the last use."""
    spans = {span.task.name: span for span in timeline.spans}
    changes: list[tuple[float, int]] = []
    for name, span in spans.items():
        what, _, layer = name.removeprefix("gather ").partition(" ")
        if not name.startswith("gather ") or what not in ("forward", "backward"):
            continue
        is_kept = what == "forward" and f"gather backward {layer}" not in spans
        last_use = spans[f"{'backward' if is_kept else what} {layer}"]
        changes += [(span.start_s, 1), (last_use.end_s, -1)]
    held = most = 0
    for _, change in sorted(changes):  # at the same moment, what is freed goes first
        held += change
        most = max(most, held)
    return most


class _Moment(NamedTuple):
    start_s: float
    end: tuple[float, int]  # seconds; of two at the same moment, the one issued later counts last


def _problems(
    use: Access, moments: Mapping[str, _Moment], fillings: Sequence[Access]
) -> list[str]:
    needed = moments[use.task]
    right = [
        moments[filling.task].end
        for filling in fillings
        if filling.content == use.content and moments[filling.task].end[0] <= needed.start_s
    ]
    if not right:
        return [f"{use.task} begins before {use.buffer} holds {use.content}"]
    return [
        f"{filling.task} fills {use.buffer} before {use.task} has finished with it"
        for filling in fillings
        if moments[filling.task].start_s < needed.end[0]
        and moments[filling.task].end > max(right)
        and filling.task != use.task
    ]
