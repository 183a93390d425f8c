"""A warden: a Python that has loaded the course, forks a judge for each request, and watches it.

How it works: `python -m utils.grading.warden` reads requests as lines of JSON and answers each with
one. It runs no learner's code, so what it forks is clean. While a judge works, the warden looks ten
times a second at the clock and at the processes below it, and in the end it kills all of them: it
adopts orphans, so nothing escapes by forking twice. When its own input ends, it ends, and so does
everything below.

Left out: more than one judge at a time; the grader starts as many wardens as there are jobs.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

TICK_S = 0.1
MAX_REPORT_BYTES = 65_536
MAX_PROCESSES = 200
ROOT = Path(__file__).resolve().parents[2]


class Watch:
    """One judge: its reports so far, and why it was stopped, if it was."""

    def __init__(self, process: int, reports: int, request: Any) -> None:
        self.process, self.reports, self.request = process, reports, request
        self.text, self.stopped, self.exit_code = b"", "", None
        self.deadline = time.monotonic() + request.time_limit_s

    def over(self) -> bool:
        """Look once; whether there is nothing more to wait for."""
        ready, _, _ = select.select([self.reports, 0], [], [], TICK_S)
        if 0 in ready and not os.read(0, 1):  # nobody asks while a judge works: the grader is gone
            raise EOFError
        is_closed = self.reports in ready and not self._read()
        self.stopped = self.stopped or self._excess()
        return is_closed or bool(self.stopped) or self._has_ended()

    def _read(self) -> bytes:
        piece = os.read(self.reports, MAX_REPORT_BYTES)
        self.text = (self.text + piece)[: MAX_REPORT_BYTES + 1]
        return piece

    def _has_ended(self) -> bool:
        process, status = os.waitpid(self.process, os.WNOHANG)
        if process:
            self.exit_code = os.waitstatus_to_exitcode(status)
            while select.select([self.reports], [], [], 0)[0] and self._read():
                pass
        return bool(process)

    def _excess(self) -> str:
        from utils.grading.tree import descendants, memory_bytes

        below, limit = descendants(os.getpid()), self.request.memory_bytes
        if len(below) > MAX_PROCESSES:  # first: the rest takes long with many
            return f"Your code ran {len(below)} processes at once; allowed are {MAX_PROCESSES}."
        if time.monotonic() > self.deadline:
            return f"Your code was still running after {self.request.time_limit_s:g} s."
        held = memory_bytes(below, limit)
        if held > limit:
            return (f"Your code held {held / 2**30:.1f} GiB of memory; allowed are "
                    f"{limit / 2**30:.1f} GiB.")  # fmt: skip
        return _too_much_written(Path(self.request.folder), self.request.file_bytes)


def _too_much_written(folder: Path, allowed: int) -> str:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    if total <= allowed:
        return ""
    return f"Your code wrote more than {allowed / 2**20:,.0f} MiB of files."


def answer_request(request: Any, labs: dict[str, Any]) -> dict[str, Any]:
    """Fork a judge, watch it, end all that is below, and say what it reported."""
    from utils.grading.reports import verdict
    from utils.grading.tree import kill_all

    reports, handle = os.pipe()
    process = os.fork()
    if not process:
        _be_the_judge(request, labs, handle)
    os.close(handle)
    watch = Watch(process, reports, request)
    try:
        while not watch.over():
            pass
        if watch.exit_code is None and not watch.stopped:
            watch.exit_code = _end_of(process)
    finally:
        is_clean = kill_all(os.getpid())
        os.close(reports)
    return {**verdict(watch.text, watch.stopped, watch.exit_code), "is_clean": is_clean}


def _end_of(process: int) -> int | None:
    """The exit code of a judge that has closed its pipe; one that lingers is killed later."""
    for _ in range(20):
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(TICK_S / 2)
    return None


def _be_the_judge(request: Any, labs: dict[str, Any], handle: int) -> None:
    """Everything that the judge's process does; it has no way back into the warden's code."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        os.setsid()
        os.closerange(3, handle)
        os.closerange(handle + 1, 4096)
        _use_folder(Path(request.folder))
        from utils.grading.judge import run

        run(request, labs[request.key[:2]], handle)
    finally:
        os._exit(0)


def _use_folder(folder: Path) -> None:
    import tempfile

    names = {"HOME": "home", "TMPDIR": "tmp", "MPLCONFIGDIR": "home", "IPYTHONDIR": "home"}
    for name, place in names.items():
        (folder / place).mkdir(exist_ok=True)
        os.environ[name] = str(folder / place)
    os.environ["COURSE_PROGRESS"] = str(folder / "home" / "progress.json")
    tempfile.tempdir = None


def _load_the_course() -> dict[str, Any]:
    """All that a judge needs, before any of them is forked: forks share it, and start at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import matplotlib.figure  # noqa: F401
        import torch
        import torch._dynamo

        from utils.checks import engine
        from utils.grading import judge  # noqa: F401
        from utils.grading.course import read_labs

        torch.set_num_threads(1)
        engine._load_labs()
    labs = read_labs(ROOT)
    gc.collect()
    gc.freeze()
    return labs


def main() -> None:
    """Serve until the input ends."""
    from utils.grading.cage import adopt_orphans
    from utils.grading.tree import kill_all

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    labs = _load_the_course()
    from utils.grading.judge import Request

    print(json.dumps({"ready": sorted(labs)}), flush=True)
    try:
        while line := _line():
            print(json.dumps(answer_request(Request(**json.loads(line)), labs)), flush=True)
    except EOFError:
        pass
    finally:
        kill_all(os.getpid())


def _line() -> bytes:
    """One request, read byte by byte: nothing of the input may lie in a buffer that forks copy."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
