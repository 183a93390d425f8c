"""Runs one command beside a load and ends all that they started: `python -m utils.proving.keeper`.

How it works: the first argument is JSON with "cores" (what the command may use, null for all),
"load" (a core for each busy process, -1 for any), "command" and its "folder". The keeper's
standard input is a pipe that its parent holds. When that closes, because time is up, Ctrl-C was
pressed or the parent was killed, the keeper ends the load, asks the command to end, and kills what
is left: also a kernel in a session of its own, because on Linux the keeper adopts orphans.

Left out: on other systems than Linux a kernel is left to notice by itself that pytest has gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

IS_LINUX = sys.platform.startswith("linux")
if IS_LINUX:
    from utils.grading.cage import adopt_orphans, die_with_parent
    from utils.grading.tree import kill_all

LOAD_FAILED = 70  # no status of pytest's
STOPPED = 71
SLICE_S = 0.1
GRACE_S = 20.0


def main(words: Sequence[str]) -> int:
    """The command's exit status, 128 + n for a signal n, or one of the two above."""
    asked = json.loads(words[0])
    if IS_LINUX:
        adopt_orphans()
    if asked["cores"]:
        os.sched_setaffinity(0, asked["cores"])
    loads: list[subprocess.Popen] = []
    try:
        loads += [start_load(core) for core in asked["load"]]
        return _run(asked["command"], asked["folder"], loads)
    finally:
        for each in loads:
            each.kill()
        if IS_LINUX:
            kill_all(os.getpid())


def start_load(core: int) -> subprocess.Popen:
    """A busy process on one core; it has begun when this returns."""
    load = subprocess.Popen(
        [sys.executable, "-m", "utils.proving.load", str(core)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    if load.stdout is None or load.stdout.readline().strip() != b"busy":
        raise SystemExit(f"The load on core {core} did not begin.")
    return load


def _run(command: Sequence[str], folder: str, loads: Sequence[subprocess.Popen]) -> int:
    before = _before_the_command if os.name != "nt" else None
    child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, preexec_fn=before)
    parent_is_gone = threading.Event()
    threading.Thread(target=_listen, args=(parent_is_gone,), daemon=True).start()
    _wait(child, {child.pid, *(load.pid for load in loads)}, parent_is_gone)
    lost_load = any(load.poll() is not None for load in loads)
    for load in loads:
        load.kill()
    if child.poll() is None:
        _ask_to_end(child)
        return STOPPED
    if lost_load:
        print("A load process ended before pytest did.", flush=True)
        return LOAD_FAILED
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _before_the_command() -> None:
    """Ctrl-C counts, also where a shell began all this in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if IS_LINUX:
        die_with_parent()


def _wait(child: subprocess.Popen, ours: set[int], parent_is_gone: threading.Event) -> None:
    """Until the command has ended or the parent is gone; adopted orphans that end are buried."""
    while child.poll() is None and not parent_is_gone.wait(SLICE_S):
        while IS_LINUX and (stranger := _ended_stranger(ours)):
            os.waitpid(stranger, 0)


def _ended_stranger(ours: set[int]) -> int | None:
    peek = os.WEXITED | os.WNOHANG | os.WNOWAIT  # our own are left for Popen to collect
    ended = os.waitid(os.P_ALL, 0, peek)
    return ended.si_pid if ended and ended.si_pid not in ours else None


def _ask_to_end(child: subprocess.Popen) -> None:
    """As Ctrl-C does, so that pytest removes its temporary folders."""
    child.terminate() if os.name == "nt" else child.send_signal(signal.SIGINT)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _listen(parent_is_gone: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    parent_is_gone.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
