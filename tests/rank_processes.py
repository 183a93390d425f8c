"""Which processes are alive, read from /proc: the tests of ranks look for what is left."""

import os
import time
from collections.abc import Collection
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not yet collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def descendants(pid: int) -> set[int]:
    """All processes that a process has started, and those have started, that are alive."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, left = set(), [pid]
    while left:
        below = children.get(left.pop(), [])
        left += below
        found |= {child for child in below if alive(child)}
    return found


def helpers(pid: int) -> set[int]:
    """The idle processes of multiprocessing, which end with the process that they belong to."""
    return {p for p in descendants(pid) if _is_helper(p)}


def ranks(pid: int) -> set[int]:
    """The ranks of a process that are alive, and what they have started.

    Only what multiprocessing started counts: the tests' process may also have a browser.
    """
    below = descendants(pid)
    started = {p for p in below if _parent(p) == pid and "multiprocessing" in _command(p)}
    return started.union(*map(descendants, started)) - helpers(pid)


def gone(pids: set[int], within_s: float = 10.0) -> bool:
    """Whether all of them end, within a time that only a machine in trouble needs."""
    deadline = time.monotonic() + within_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def left_in(folder: Path, within_s: float = 10.0, known: Collection[str] = ()) -> list[str]:
    """What stays in a folder for temporary files, but for the cache of compiled code of torch."""
    deadline = time.monotonic() + within_s
    while True:
        left = [each.name for each in folder.iterdir() if each.name not in known]
        left = [name for name in left if not name.startswith("torchinductor_")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _is_helper(pid: int) -> bool:
    """A server of ranks and its forks have the same command; the server's parent is no server."""
    command = _command(pid)
    if "resource_tracker" in command:
        return True
    return "forkserver" in command and "forkserver" not in _command(_parent(pid))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return os.getpid()
