"""What the threads of this process are doing, as Linux tells it: run, wait for a core, or sleep.

How it works: `/proc/self/task` has a folder for each thread, also for those of C++ libraries that
Python does not know. "R" is a thread that runs or could run if it had a core.

Left out: systems other than Linux; there the lists are empty and `wanted_s` is the process's time.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import NamedTuple

_TASKS = Path("/proc/self/task")
NS_PER_S = 1e9


class OtherThread(NamedTuple):
    """A thread beside the one that asks; `wanted_s` is what it ran and waited for a core."""

    state: str  # R runs or waits for a core, S sleeps, D waits for a disk
    wanted_s: float


def other_threads() -> list[OtherThread]:
    """All threads of this process but the calling one."""
    mine = str(threading.get_native_id())
    return [_thread(task) for task in _TASKS.glob("*") if task.name != mine]


def wanted_s(threads: list[OtherThread]) -> float:
    """Seconds for which these threads ran or waited for a core."""
    return sum(each.wanted_s for each in threads) if threads else time.process_time()


def _thread(task: Path) -> OtherThread:
    state = _read(task / "stat").rpartition(")")[2].split()
    ran_ns, waited_ns = [*map(int, _read(task / "schedstat").split()[:2]), 0, 0][:2]
    return OtherThread(state[0] if state else "S", (ran_ns + waited_ns) / NS_PER_S)


def _read(path: Path) -> str:
    """The text, or nothing: the thread may have ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
