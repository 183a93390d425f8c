"""Find the learner's own line in a traceback and put an exception into one sentence.

How it works: a frame is the learner's when its file is neither in the course's `utils/`, nor in
Python's library, nor among the installed packages, and it is not the judge. The innermost such
frame is shown: for an error inside torch that is the line that called torch.
Left out: chained exceptions; only the one that arrived is shown.
"""

from __future__ import annotations

import dis
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from utils.checks.helpers import one_line, shown

_FOLDERS = [str(Path(__file__).resolve().parents[1])] + [
    folder
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (folder := sysconfig.get_paths().get(name))
]
_NOT_LEARNERS = tuple(os.path.join(os.path.normcase(folder), "") for folder in _FOLDERS)


def is_placeholder(answer: Any) -> bool:
    """Say whether an answer is still None or `...`, or a collection of nothing else."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, (list, tuple)):
        return bool(answer) and all(is_placeholder(item) for item in answer)
    return answer is None or answer is Ellipsis


def is_stub(error: BaseException) -> bool:
    """Say whether this is the `raise NotImplementedError` of a stub.

    torch raises NotImplementedError too, for an operation it lacks: that comes from a call or from
    a library's file, not from a `raise` in the learner's.
    """
    if not isinstance(error, NotImplementedError):
        return False
    *_, last = _tracebacks(error)
    instruction = dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]]
    return instruction == "RAISE_VARARGS" and not _is_library(last.tb_frame)


def verdict_on(error: BaseException, judge: Callable, answer: Any) -> tuple[str, str]:
    """Return the status and the sentence for an exception that came out of a judge."""
    if is_stub(error):
        return "not attempted", ""
    what = f"{type(error).__name__}: {_message(error)}".removesuffix(": ")
    line = _learners_line(error, judge)
    if line:
        return "raised", f"{what} {line}."
    return "not yet", (
        f"The check could not use this answer, {shown(answer)} (type {type(answer).__name__}): "
        f"it raised {what}."
    )


def _learners_line(error: BaseException, judge: Callable) -> str:
    found = ""
    for frame, line_number in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if code is judge.__code__ or _is_library(frame):
            continue
        source = linecache.getline(code.co_filename, line_number, frame.f_globals).strip()
        place = "code" if code.co_name == "<module>" else "function"
        found = f"(line {line_number - code.co_firstlineno + 1} of your {place}"
        found += f": `{one_line(source, 160)}`)" if source else ")"
    return found


def _message(error: BaseException) -> str:
    try:
        return one_line(str(error))
    except Exception:
        return "its message could not be read"


def is_library_file(file: str) -> bool:
    """Say whether code of this file is the course's, Python's or an installed package's."""
    if file.startswith("<frozen") or "site-packages" in file or "dist-packages" in file:
        return True
    return os.path.normcase(os.path.abspath(file)).startswith(_NOT_LEARNERS)


def _is_library(frame: FrameType) -> bool:
    return is_library_file(frame.f_code.co_filename)


def _tracebacks(error: BaseException) -> Iterator[TracebackType]:
    step = error.__traceback__
    while step is not None:
        yield step
        step = step.tb_next
