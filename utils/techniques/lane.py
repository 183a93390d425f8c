"""Where messages travel: at once, in a thread, or on a stream of the GPU.

How it works: whoever shards a model issues its collectives to a lane, which carries them out in the
order of issue and gives back something to wait for. The order is the same on all ranks, so the
right messages meet.

    InlineLane   the collective is done when `issue` returns: nothing overlaps
    ThreadLane   a thread carries it out while the caller computes on; for gloo
    StreamLane   a stream of the GPU does; for NCCL

`utils.ranks.SlowLink` has the same method and can stand in for any of them. Left out: several lanes
at once. On no account issue other collectives to the same group while a lane is at work.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch


class Pending(Protocol):
    """A message under way."""

    def wait(self) -> Any:
        """Return when compute may rely on its result, or raise what it has raised."""


class Lane(Protocol):
    """Carries out collectives in the order of issue."""

    def issue(self, collective: Callable[[], Any], num_bytes: float, name: str) -> Pending:
        """Begin `collective()`, which sends `num_bytes` from this rank; `name` is for records."""

    def close(self) -> None:
        """Wait for all that is under way."""


class _Done:
    def wait(self) -> None:
        """Nothing to wait for."""


class InlineLane:
    """No lane at all: the caller waits for every message."""

    def issue(self, collective: Callable[[], Any], num_bytes: float, name: str) -> Pending:
        """Carry it out now."""
        collective()
        return _Done()

    def close(self) -> None:
        """Nothing is under way."""


class _Result:
    def __init__(self, future: Future) -> None:
        self._future = future

    def wait(self) -> None:
        """Block until the thread is done with it."""
        self._future.result()


class ThreadLane:
    """One thread, which leaves Python's lock while a message is under way.

    A message that fails is the last one: those behind it would wait for ranks that it has left
    behind, and whoever waits for them would never hear of the error.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lane")
        self._error: BaseException | None = None

    def issue(self, collective: Callable[[], Any], num_bytes: float, name: str) -> Pending:
        """Queue it behind those issued before."""
        return _Result(self._thread.submit(self._carry, collective))

    def _carry(self, collective: Callable[[], Any]) -> None:
        if self._error is not None:
            raise self._error
        try:
            collective()
        except BaseException as error:
            self._error = error
            raise

    def close(self) -> None:
        """Wait, and end the thread."""
        self._thread.shutdown()


class _Event:
    """Holds the tensors of a message: freed earlier, their memory would be computed into."""

    def __init__(self, event: torch.cuda.Event, collective: Callable[[], Any]) -> None:
        self._event, self._collective = event, collective

    def wait(self) -> None:
        """What compute is given from now on runs after the message; the processor goes on."""
        torch.cuda.current_stream().wait_event(self._event)
        self._collective = None


class StreamLane:
    """A stream of high priority: short messages should not queue behind long kernels."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream(priority=-1)

    def issue(self, collective: Callable[[], Any], num_bytes: float, name: str) -> Pending:
        """Launch it behind what compute has been given so far."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            collective()
            return _Event(self._stream.record_event(), collective)

    def close(self) -> None:
        """Let the processor wait for the stream."""
        self._stream.synchronize()
