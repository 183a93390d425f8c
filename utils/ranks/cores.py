"""More ranks than cores: allowed, and said where it does no harm.

How it works: a notebook's outputs are compared strictly between machines, and those have different
numbers of cores. So in a notebook nothing is printed: a lesson that wants to say it shows
`cores_sentence(4)` with `utils.measured.measured_text`, which is not compared. Elsewhere (scripts,
tests, benchmarks) Python's own `warnings` say it once per process.
"""

from __future__ import annotations

import os
import sys
import warnings

_warned = False


def cores_sentence(world_size: int) -> str:
    """Say whether the ranks have a core each; show it with `utils.measured.measured_text`."""
    num_cores = _num_cores()
    cores = f"{num_cores} core{'s' if num_cores > 1 else ''}"
    if world_size <= num_cores:
        return f"{world_size} ranks on {cores}: each rank has a core of its own."
    return (
        f"{world_size} ranks on {cores}: they take turns, so seconds say little; values, bytes "
        "and the order of calls are not affected."
    )


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def warn_of_many(world_size: int) -> None:
    """Warn, once per process and outside of notebooks only, when ranks have to share cores."""
    global _warned
    if world_size > _num_cores() and not _warned and not _in_notebook():
        _warned = True
        warnings.warn(cores_sentence(world_size), stacklevel=3)
