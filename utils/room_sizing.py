"""From what one learner costs to a machine for a room: arithmetic alone.

How it works: each learner has JupyterLab's server and one or more open notebooks, of which one
runs; libraries' pages are there once for all. Memory has to suffice for all learners at their
peaks at once: a process that gets none is killed. Cores only have to suffice for the usual share
of learners at work: with fewer, all wait longer and nothing is lost.

Left out: the hub's own processes (a margin stands for them), disks and the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

GIB = 2**30
MARGIN, SYSTEM_BYTES = 1.2, 2 * GIB
COMMON_MEMORY_GIB = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
COMMON_CORES = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Cost:
    """One learner: bytes of the server, and of a notebook while it runs and when it rests."""

    server_bytes: int
    peak_bytes: int
    resting_bytes: int
    file_bytes: int
    busy_cores: float

    def bytes_at_peak(self, num_open: int) -> int:
        """The server, one notebook at its peak and `num_open` - 1 that rest."""
        return self.server_bytes + self.peak_bytes + (num_open - 1) * self.resting_bytes


@dataclass(frozen=True)
class Room:
    """How many learners, which share of them computes at a moment, how many notebooks are open."""

    num_learners: int
    share: float
    num_open: int

    def most_bytes(self, cost: Cost) -> int:
        """All learners at their peaks at once."""
        return cost.file_bytes + self.num_learners * cost.bytes_at_peak(self.num_open)

    def usual_bytes(self, cost: Cost) -> int:
        """The usual share at its peak, the others at rest."""
        below = (1 - self.share) * max(0, cost.peak_bytes - cost.resting_bytes)
        return self.most_bytes(cost) - round(self.num_learners * below)

    def busy_cores(self, cost: Cost) -> float:
        """Cores at work when the usual share computes."""
        return self.num_learners * self.share * cost.busy_cores


def memory_gib(num_bytes: float) -> int:
    """The smallest common size of a machine that bears these bytes, a margin and the system."""
    return _at_least(COMMON_MEMORY_GIB, (num_bytes * MARGIN + SYSTEM_BYTES) / GIB)


def num_cores(busy: float) -> int:
    """The smallest common number of cores that is not below what is busy."""
    return _at_least(COMMON_CORES, busy)


def slow_down(room: Room, cost: Cost, cores: int) -> float:
    """How many times longer a cell takes when all learners run it at the same moment."""
    return max(1.0, room.num_learners * cost.busy_cores / cores)


def _at_least(sizes: tuple[int, ...], wanted: float) -> int:
    return next((size for size in sizes if size >= wanted), math.ceil(wanted))
