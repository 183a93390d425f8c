"""Where a rank is: the lines of the learner's code on its stack, as plain data.

How it works: a frame is the learner's unless its file is the course's, Python's or a package's
(the rule of `utils.checks.blame`). Only file and line numbers travel; the notebook's process has
the cells' text and adds it. When no frame is the learner's, the course's own are taken, such as a
worker of `utils.techniques`.
"""

from __future__ import annotations

import functools
import sys
import threading
import traceback
from collections.abc import Iterable
from types import CodeType, FrameType, TracebackType
from typing import NamedTuple

from utils.checks.blame import is_library_file
from utils.threads import other_threads, wanted_s

MAX_LINES = 12


class Line(NamedTuple):
    """A line of code on the stack; `first` is the line where its function begins."""

    file: str
    number: int
    function: str
    first: int


class Where(NamedTuple):
    """A rank's answer to "where are you?": outermost line first.

    `inside` is what the innermost line has called in torch, `waiting` whether it waits there for
    other ranks, `alone` whether nothing could still act for it: no thread of Python, none that only
    lacks a core or a disk, no message on its way. `calls` and `cpu_s` (ran or wanted to) show
    whether it moves.
    """

    lines: tuple[Line, ...]
    inside: str
    waiting: bool
    alone: bool
    calls: int
    cpu_s: float


def where_now(calls: int) -> Where:
    """Where the worker is in the main thread."""
    frames = _frames_of_worker(sys._current_frames().get(threading.main_thread().ident or 0))
    lines = learners_lines((frame, frame.f_lineno) for frame in frames)
    alone = {threading.main_thread(), threading.current_thread()}.issuperset(threading.enumerate())
    others = other_threads()
    alone = alone and not any(each.state in "RD" for each in others)
    alone = alone and not _is_message_on_its_way()
    return Where(lines, _inside(frames), _is_waiting(frames), alone, calls, wanted_s(others))


def _is_message_on_its_way() -> bool:
    if sys.platform == "win32":
        return False
    from utils.ranks.kernel_bytes import tcp_bytes_under_way  # only where there is fcntl

    return tcp_bytes_under_way() > 0


def lines_of(trace: TracebackType | None) -> tuple[Line, ...]:
    """The learner's lines of a traceback."""
    return learners_lines(traceback.walk_tb(trace))


def callers_line() -> Line | None:
    """The learner's innermost line on this thread's stack, else the course's, else None."""
    frame: FrameType | None = sys._getframe(1)
    ours: FrameType | None = None
    while frame is not None and not _starts_worker(frame.f_code):
        if _is_learners(frame.f_code.co_filename):
            return _line(frame, frame.f_lineno)
        if ours is None and _is_courses(frame.f_code.co_filename):
            ours = frame
        frame = frame.f_back
    return None if ours is None else _line(ours, ours.f_lineno)


def learners_lines(stack: Iterable[tuple[FrameType, int]]) -> tuple[Line, ...]:
    """The learner's lines of a stack (outermost first), else the course's."""
    stack = list(stack)
    mine = [_line(*step) for step in stack if _is_learners(step[0].f_code.co_filename)]
    ours = [_line(*step) for step in stack if _is_courses(step[0].f_code.co_filename)]
    return tuple((mine or ours)[-MAX_LINES:])


def _frames_of_worker(frame: FrameType | None) -> list[FrameType]:
    """Outermost first, without the frames that started the rank; none while there is no worker."""
    frames: list[FrameType] = []
    while frame is not None and not _starts_worker(frame.f_code):
        frames.insert(0, frame)
        frame = frame.f_back
    return frames if frame is not None else []


def _inside(frames: list[FrameType]) -> str:
    """The function that the innermost learner's line has called, such as "all_reduce"."""
    places = [i for i, frame in enumerate(frames) if _is_learners(frame.f_code.co_filename)]
    called = frames[places[-1] + 1 :] if places else []
    names = [frame.f_code.co_name for frame in called]
    return next((name for name in names if name not in _WRAPPERS), "")


def _is_waiting(frames: list[FrameType]) -> bool:
    """Whether it waits in a collective, or in a backward pass, which may wait for one."""
    if not frames:
        return False
    code = frames[-1].f_code
    file = code.co_filename.replace("\\", "/")
    in_torch = "/torch/distributed/" in file or file.endswith("torch/autograd/graph.py")
    return in_torch or (code.co_name == "wait" and file.endswith("utils/ranks/recorder.py"))


_WRAPPERS = ("wrapper", "wait", "_fn", "inner")


def _starts_worker(code: CodeType) -> bool:
    """Whether this is `call_worker` of `utils.ranks.child`; what is above it is not the worker."""
    return code.co_name == "call_worker"


@functools.cache
def _is_learners(file: str) -> bool:
    return not is_library_file(file)


@functools.cache
def _is_courses(file: str) -> bool:
    path = file.replace("\\", "/")
    return "/utils/techniques/" in path or "/utils/experiments/" in path


def _line(frame: FrameType, number: int) -> Line:
    code = frame.f_code
    return Line(code.co_filename, number, code.co_name, code.co_firstlineno)
