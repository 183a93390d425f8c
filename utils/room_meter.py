"""What a learner's processes hold and use at a moment, read from Linux's /proc.

How it works: one reading adds up a process and all below it. Memory "of its own" is Pss_Anon and
Pss_Shmem of smaps_rollup: a page that ranks share with the server they were forked from counts
once. Pages of files (libraries) are kept apart: all learners of a machine share them, so the
figure does not depend on who else runs here. CPU seconds include processes that have ended.

Left out: systems without /proc, and memory of a GPU.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MIB, PROC = 2**20, Path("/proc")
KERNEL, RANK = "kernel", "rank"
SERVER_OF_RANKS, TRACKER = "server that ranks are forked from", "multiprocessing's tracker"
JUPYTERLAB = "JupyterLab's server"


@dataclass
class Reading:
    """All processes of one learner at one moment."""

    own_bytes: Counter[str] = field(default_factory=Counter)  # by kind of process
    num_processes: Counter[str] = field(default_factory=Counter)
    file_bytes: int = 0  # pages of files of the process that has most of them
    pss_bytes: int = 0  # with this learner's part of the shared pages: only for a difference
    cpu_s: float = 0.0
    num_runnable: int = 0  # threads that run or wait for a core

    @property
    def total_own_bytes(self) -> int:
        """What one more such learner costs the machine."""
        return self.own_bytes.total()


def read_tree(process: int, itself: bool = True) -> Reading:
    """A reading of all below `process`, and of itself; those that end meanwhile are left out."""
    from utils.grading.tree import descendants  # here: it imports what only Unix has

    reading = Reading()
    for each in [*[process] * itself, *descendants(process)]:
        with contextlib.suppress(OSError, ValueError, LookupError):
            _add(reading, PROC / str(each))
    return reading


def kind_of(command: str, parents_command: str) -> str:
    """A name for a process; a server of ranks and the ranks forked from it look alike."""
    if "resource_tracker" in command:
        return TRACKER
    if "multiprocessing" in command:  # "spawn" gives a rank a command line of its own
        server = "forkserver" in command and "forkserver" not in parents_command
        return SERVER_OF_RANKS if server else RANK
    if "ipykernel" in command:
        return KERNEL
    if "jupyterlab" in command:
        return JUPYTERLAB
    if module := re.search(r" -m (\S+)", command):
        return f"python -m {module[1]}"
    return Path(command.split(" ")[0]).name or "a process that ends"


def _add(reading: Reading, folder: Path) -> None:
    """All figures are read before one is added: a process may end at any line."""
    _, parent, ticks = _stat(folder)
    reading.cpu_s += ticks / os.sysconf("SC_CLK_TCK")
    held = _sizes(folder / "smaps_rollup") | _sizes(folder / "status")
    kind = kind_of(_command(folder), _command(PROC / str(parent)))
    num_runnable = sum(_stat(task)[0] == "R" for task in (folder / "task").iterdir())
    anon, shmem, pss, files = (held[name] for name in ("Pss_Anon", "Pss_Shmem", "Pss", "RssFile"))
    reading.own_bytes[kind] += anon + shmem
    reading.num_processes[kind] += 1
    reading.pss_bytes += pss
    reading.file_bytes = max(reading.file_bytes, files)
    reading.num_runnable += num_runnable


def _sizes(file: Path) -> dict[str, int]:
    """Lines like "Pss:  12 kB", in bytes; a process that is ending has none."""
    found = re.findall(r"^(\w+):\s+(\d+) kB", file.read_text(), re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in found}


def _stat(folder: Path) -> tuple[str, int, int]:
    """State, parent, and ticks of CPU time with those of children that were waited for."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1]), sum(map(int, fields[11:15]))


def _command(folder: Path) -> str:
    return (folder / "cmdline").read_text().replace("\0", " ").strip()
