"""All processes below this one: who they are, what memory they hold, and their end.

How it works: /proc gives each process's parent. The caller has adopted orphans (cage.py), so a
process that forked twice, or made a session of its own, still is a descendant. Memory is counted
once for pages that processes share (Pss), asked for only when a cheaper figure, which counts them
in each, is above the limit.

Left out: systems without /proc.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections import defaultdict
from pathlib import Path

FAREWELL_S = 10.0
_PAGE_BYTES = resource.getpagesize()


def descendants(of: int) -> list[int]:
    """The ids of all processes below `of`, zombies not counted."""
    children: dict[int, list[int]] = defaultdict(list)
    dead = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                children[int(fields[1])].append(int(name))
                if fields[0] in (b"Z", b"X"):
                    dead.add(int(name))
    found, waiting = [], [of]
    while waiting:
        below = children[waiting.pop()]
        found += below
        waiting += below
    return [process for process in found if process not in dead]


def memory_bytes(processes: list[int], enough: int) -> int:
    """Bytes that the processes hold together; exact only when above `enough`."""
    total = sum(_own_bytes(process) for process in processes)
    return total if total <= enough else sum(_shared_out_bytes(process) for process in processes)


def _own_bytes(process: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{process}/statm").read_text().split()
        return (int(words[1]) - int(words[2])) * _PAGE_BYTES + _shared_memory_bytes(process)
    return 0


def _shared_memory_bytes(process: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{process}/status").read_text()
        return int(text.partition("RssShmem:")[2].split()[0]) * 1024
    return 0


def _shared_out_bytes(process: int) -> int:
    """Private pages, and of shared ones this process's part; files' pages do not count."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        parts = [text.partition(f"Pss_{kind}:")[2].split()[0] for kind in ("Anon", "Shmem")]
        return sum(map(int, parts)) * 1024
    return _own_bytes(process)


def kill_all(below: int) -> bool:
    """Kill and bury every descendant of the calling process; says whether none is left."""
    deadline = time.monotonic() + FAREWELL_S
    while True:
        alive = descendants(below)
        for process in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive or time.monotonic() > deadline:
            return not alive
        time.sleep(0.005)
