"""The grader's end of a warden: start it, ask it, replace it when it is gone.

How it works: a warden is a fresh Python with an environment of its own, which sees the private copy
of the course and no start-up files of the user. It is asked one exercise at a time. One that does
not answer in time, or dies, costs the row in question and is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from utils.grading.course import CourseError

START_S = 300.0  # importing torch from a cold and slow disk
SLICE_S = 0.2  # how soon Ctrl-C is seen
LATE_S = 60.0  # for ending a tree of processes, beyond the request's own limit
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH")


class WardenGone(Exception):
    """A warden died or does not answer."""


class WardenRefused(CourseError):
    """A warden cannot even start: the checks, or Python's packages, cannot be loaded."""


class Warden:
    """One warden's process; `ask` it, `close` it. When `stopping` is set, it is not waited for."""

    def __init__(
        self, course: Path, place: Path, stopping: threading.Event | None = None
    ) -> None:
        self._stopping = stopping or threading.Event()
        place.mkdir(exist_ok=True)
        with (place / "errors.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "utils.grading.warden"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=place,
                env=_environment(course, place),
                start_new_session=True,
            )
        try:
            self._answer(START_S)
        except WardenGone:
            self.close()
            last = (place / "errors.txt").read_text(errors="replace").strip().split("\n")[-1]
            raise WardenRefused(
                f"The course's checks cannot be loaded ({last or 'no answer'}): run `make "
                "check-env`, then the same command again."
            ) from None
        except BaseException:  # Ctrl-C
            self.close()
            raise

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The verdict on one exercise; raises WardenGone."""
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise WardenGone from None
        return self._answer(request["time_limit_s"] + LATE_S)

    def close(self) -> None:
        """End it and what is below it."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(LATE_S / 4)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def _answer(self, patience_s: float) -> dict[str, Any]:
        line, deadline = b"", time.monotonic() + patience_s
        handle = self._process.stdout.fileno()
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self._stopping.is_set():
                raise WardenGone
            if not select.select([handle], [], [], min(SLICE_S, left_s))[0]:
                continue
            piece = os.read(handle, 65_536)
            if not piece:
                raise WardenGone
            line += piece
        return json.loads(line)


def _environment(course: Path, place: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {
        "PYTHONPATH": str(course),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # checks are made for the CPU
        "HOME": str(place),
        "MPLCONFIGDIR": str(place),
        "COURSE_PROGRESS": str(place / "progress.json"),
    }
