"""What goes to a rank and what comes back from it: plain data.

Left out: a rank's answer to "where are you?" (`utils.ranks.whereabouts.Where`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from utils.ranks.whereabouts import Line


@dataclass(frozen=True)
class Job:
    """All that one rank needs to begin; the crew fills in the last lines."""

    world_size: int
    backend: str
    timeout_s: float
    environment: dict[str, str]
    payload: bytes
    rank: int = 0
    store: str = ""
    pages: str = ""
    folder: str = ""  # of named files, to remove when the notebook's process is gone


class Finished(NamedTuple):
    """The worker returned; `payload` is its result."""

    payload: bytes


class Raised(NamedTuple):
    """The worker, or what stands around it (`stage`), raised; `when_s` is the machine's clock."""

    stage: str
    type: str
    message: str
    lines: tuple[Line, ...]
    when_s: float
