"""Who worked when: named stretches of time on a rank, on one clock for all ranks.

How it works: ranks of one machine share its monotonic clock. When the log is made the ranks meet
and agree on the latest of their times as zero, so the events of all ranks fit into one picture.
`span` measures what runs inside of a `with` block; `begin` and `end` measure work that goes on
elsewhere, such as an asynchronous collective. Left out: work of a GPU, which outlasts its call.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple


class Event(NamedTuple):
    """A stretch of time on one lane of a rank, in seconds from the common start."""

    rank: int
    lane: str
    name: str
    start_s: float
    end_s: float


class EventLog:
    """`log = EventLog(rank)` on all ranks at the same place, then `with log.span("backward"):`.

    It begins with a barrier and a small all-reduce of `group`, unless there is no process group.
    Return `log.events()` from the worker.
    """

    def __init__(self, rank: int = 0, group: object = None) -> None:
        self._rank, self._lock = rank, threading.Lock()
        self._events: list[Event] = []
        self._open: dict[int, tuple[str, str, float]] = {}
        self._last_token = 0
        self._zero_s = _common_zero_s(group)

    @contextlib.contextmanager
    def span(self, name: str, lane: str = "compute") -> Iterator[None]:
        """Record the time that the block takes, also when it raises."""
        token = self.begin(name, lane)
        try:
            yield
        finally:
            self.end(token)

    def begin(self, name: str, lane: str = "communication") -> int:
        """Note that something begins now; `end` takes the number that is returned."""
        now_s = self.now_s()
        with self._lock:
            self._last_token += 1
            self._open[self._last_token] = (name, lane, now_s)
            return self._last_token

    def end(self, token: int) -> None:
        """Note that it ends now, in whichever thread. Raises KeyError for an unknown number."""
        now_s = self.now_s()
        with self._lock:
            if token not in self._open:
                raise KeyError(f"No open event has the number {token}: end each one once.")
            name, lane, start_s = self._open.pop(token)
            self._events.append(Event(self._rank, lane, name, start_s, now_s))

    def events(self) -> list[Event]:
        """All that has ended, by start; plain data that a worker can return."""
        with self._lock:
            return sorted(self._events, key=lambda event: event.start_s)

    def now_s(self) -> float:
        """Seconds since the common start."""
        return time.perf_counter() - self._zero_s


def _common_zero_s(group: object) -> float:
    import torch  # here, so that importing `utils.ranks` stays light
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return time.perf_counter()
    dist.barrier(group=group)
    zero_s = torch.tensor(time.perf_counter(), dtype=torch.float64)
    if dist.get_backend(group) == "nccl":
        zero_s = zero_s.cuda()
    dist.all_reduce(zero_s, op=dist.ReduceOp.MAX, group=group)
    return zero_s.item()
