"""A step on several streams: who waits for whom, and the moment each task begins and ends.

How it works: a task runs on one stream, as a kernel or a collective does. A stream works in the
order in which its tasks were issued. A task begins when its stream is free and every task in
`after` has ended. So one pass over the tasks, in the order of issue, gives every moment exactly.
A builder (`utils.simulate.data_parallel` and others to come) turns a training method into such a
list; a limit on prefetching or on buffers is one more entry in `after`.

Left out: streams that slow each other down, and the time the processor needs to issue tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

COMPUTE, COMMUNICATION = "compute", "communication"


@dataclass(frozen=True)
class Task:
    """Work of `seconds` on a stream, not before the tasks named in `after` have ended."""

    name: str
    stream: str
    seconds: float
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """A task and the time it took."""

    task: Task
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timeline:
    """The spans of all tasks, in the order of issue."""

    spans: tuple[Span, ...]

    @cached_property
    def total_s(self) -> float:
        """The end of the last task."""
        return max((span.end_s for span in self.spans), default=0.0)

    @property
    def compute_s(self) -> float:
        """What the step would take if nothing ever had to be waited for."""
        return self.busy_s(COMPUTE)

    @property
    def exposed_s(self) -> float:
        """Time in which compute stands still: total minus compute, what nothing hides."""
        return math.fsum(end_s - start_s for start_s, end_s in self.gaps())

    @property
    def efficiency(self) -> float:
        """The share of the step in which compute works; 1 for an empty timeline."""
        return 1.0 - self.exposed_s / self.total_s if self.total_s else 1.0

    def on(self, stream: str) -> tuple[Span, ...]:
        """The spans of one stream, in time."""
        return tuple(span for span in self.spans if span.task.stream == stream)

    def busy_s(self, stream: str) -> float:
        """Seconds of work on one stream."""
        return math.fsum(span.task.seconds for span in self.on(stream))

    def span(self, name: str) -> Span:
        """The span of the task of that name."""
        return next(span for span in self.spans if span.task.name == name)

    def gaps(self, stream: str = COMPUTE) -> list[tuple[float, float]]:
        """(start, end) of each time in which the stream stands still before the step's end."""
        gaps, free_s = [], 0.0
        for span in self.on(stream):
            if span.start_s > free_s:
                gaps.append((free_s, span.start_s))
            free_s = span.end_s
        return [*gaps, (free_s, self.total_s)] if free_s < self.total_s else gaps


def simulate(tasks: Iterable[Task]) -> Timeline:
    """Run the tasks, given in the order of issue.

    Raises ValueError for a name given twice, a negative duration, or a task that waits for one
    that is not issued before it: no order of issue could ever let it begin.
    """
    ends_s: dict[str, float] = {}
    free_s: dict[str, float] = {}
    spans = []
    for task in tasks:
        if task.name in ends_s:
            raise ValueError(f"Two tasks have the name {task.name!r}; give each its own.")
        if not 0 <= task.seconds < math.inf:
            raise ValueError(f"{task.name!r} takes {task.seconds} seconds; give 0 or more.")
        start_s = free_s.get(task.stream, 0.0)
        for name in task.after:
            if name not in ends_s:
                raise ValueError(
                    f"{task.name!r} waits for {name!r}, which is not issued before it: change the "
                    "order of the tasks, or drop the wait."
                )
            start_s = max(start_s, ends_s[name])
        ends_s[task.name] = free_s[task.stream] = start_s + task.seconds
        spans.append(Span(task, start_s, start_s + task.seconds))
    return Timeline(tuple(spans))
