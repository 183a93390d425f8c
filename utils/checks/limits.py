"""Run a learner's code so that it ends in time: the watchdog behind `check`.

How it works: `run_limited` calls a function in a worker thread and waits in short slices, so Ctrl-C
and the kernel's stop button always reach the waiting thread, also on Windows; no signal is used.
When the time is up, a `TimeLimit` is raised inside the worker. Where a bare `except:` swallows it,
relentless ones follow: each orders the next one while it is being made, so that one strikes in
the handler, outside the `try`. A worker that sits in one long call (`time.sleep(1000)`) cannot be
reached before that call returns: it is left behind as a daemon thread, which ends at that moment
and never keeps Python from closing.

Why a thread: a process of its own could be killed outright, but functions defined in a notebook
cannot be handed to it on Windows and macOS. What a thread does not inherit in torch (grad mode, the
number of threads, the default device) is carried over.

Left out: code that holds Python's lock in a single call (`sum(range(10**12))`) or that crashes the
process; only a restarted kernel ends that. Hooks and modes entered by the caller stay its own.
"""

from __future__ import annotations

import contextvars
import ctypes
import functools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SLICE_S = 0.05  # how often a waiting thread looks up: the delay of Ctrl-C on Windows
POLITE_S = 0.5  # what the first TimeLimit is given, so that `finally` blocks can tidy up
FIRM_S = 1.5  # how long relentless ones are tried before the worker is left behind


class TimeLimit(BaseException):
    """Raised inside code that ran out of time; `except Exception` lets it pass."""


@dataclass(frozen=True)
class Ended:
    """How a limited call ended: with a `value`, an `error`, or `stopped` because time was up.

    `left_behind` says that the stopped code could not be reached and still runs.
    """

    value: Any = None
    error: BaseException | None = None
    stopped: bool = False
    left_behind: bool = False


class _Worker(threading.Thread):
    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True, name="check")
        self.running = True
        self.ended = Ended()
        self._function: Callable[[], Any] | None = function
        self._context = contextvars.copy_context()
        self._use_torch_settings = _torch_settings()
        self._interrupting, self._done = threading.Lock(), threading.Event()
        self._relentless: type[TimeLimit] | None = None

    def run(self) -> None:
        try:
            try:
                self._call()
            except TimeLimit:  # whoever waits knows that time was up
                self.running = False
            try:  # an interruption still on its way lands here, not in Python's own thread code
                with self._interrupting:
                    self._function = None
                _checkpoint()
            except TimeLimit:
                pass
        finally:
            self._done.set()

    def _call(self) -> None:
        try:
            try:
                self._use_torch_settings()
                value = self._context.run(self._function)
            finally:  # there is no call in here, and it is at calls that an interruption strikes
                self.running = False
                if self._relentless is not None:
                    del self._relentless.__init__  # the next one orders none
            self.ended = Ended(value=value)
        except TimeLimit:
            pass
        except BaseException as error:
            self.ended = Ended(error=error)

    def interrupt(self, kind: type[TimeLimit]) -> None:
        with self._interrupting:
            if self.running and self.ident is not None:
                _raise_in_thread(self.ident, kind)

    def wait(self, seconds: float) -> bool:
        """Wait in slices until the worker is done (True) or `seconds` have passed (False).

        Not with `join`: interrupted by Ctrl-C, Python 3.12 and older take the thread for ended.
        """
        deadline = time.monotonic() + seconds
        while not self._done.is_set() and (left := deadline - time.monotonic()) > 0:
            self._done.wait(min(SLICE_S, left))
        if self._done.is_set():
            self.join()  # only its last instructions are left
        return self._done.is_set()

    def stop(self) -> bool:
        """End the worker's code; False when it could not be reached."""
        self.interrupt(TimeLimit)
        ended = self.wait(POLITE_S)
        deadline, self._relentless = time.monotonic() + FIRM_S, _relentless_for(self.ident)
        while not ended and time.monotonic() < deadline:
            self.interrupt(self._relentless)
            ended = self.wait(SLICE_S)
        return ended


def run_limited(function: Callable[[], Any], seconds: float) -> Ended:
    """Call `function()` for at most `seconds` and say how it ended.

    A KeyboardInterrupt of the caller stops the code and passes on; nothing else is raised.
    """
    worker = _Worker(function)
    try:
        worker.start()
        if worker.wait(seconds):
            return worker.ended
        return Ended(stopped=True, left_behind=not worker.stop())
    except BaseException:  # Ctrl-C, at whatever point
        worker.stop()
        raise


_raise_in_thread = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def _relentless_for(thread_id: int | None) -> type[TimeLimit]:
    """Return a TimeLimit whose making orders the next one in that thread.

    The order is C code throughout: a Python function would be struck before it is done.
    """
    kind = type("TimeLimit", (TimeLimit,), {})
    kind.__init__ = staticmethod(functools.partial(_raise_in_thread, thread_id, kind))
    return kind


def _checkpoint() -> None:
    """Do nothing: the start of a Python function is where a pending exception strikes."""


def _torch_settings() -> Callable[[], None]:
    """Return a function that repeats this thread's torch settings in another thread."""
    torch = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    grad, num_threads = torch.is_grad_enabled(), torch.get_num_threads()
    device = torch.get_default_device()

    def use() -> None:
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)
        if device.type != "cpu":
            torch.set_default_device(device)

    return use
