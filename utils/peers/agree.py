"""Ranks that fail together: an error on one of them is raised on all, so that nobody waits.

How it works: each rank does its part, then all tell each other in words what went wrong. Without
a process group, or in one of a single rank, the functions do their part and ask nobody.

Left out: a rank that dies; the launcher ends the others then (`utils.ranks`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from utils.checks.helpers import one_line
from utils.techniques.zero_checkpoint import CheckpointError

Group = dist.ProcessGroup | None
T = TypeVar("T")


def agree(work: Callable[[], T], group: Group = None) -> T:
    """This rank's result of `work()`. Raises CheckpointError on every rank if it fails on any."""
    result, error = None, None
    try:
        result = work()
    except Exception as reason:  # libraries raise types of their own
        error = one_line(str(reason) or type(reason).__name__)
    for rank, words in enumerate(from_all(error, group)):
        if words is not None:
            raise CheckpointError(words if world_size_of(group) == 1 else f"rank {rank}: {words}")
    return result


def from_all(mine: Any, group: Group = None) -> list[Any]:
    """Every rank's small object, in rank order."""
    if world_size_of(group) == 1:
        return [mine]
    found: list[Any] = [None] * world_size_of(group)
    dist.all_gather_object(found, mine, group=group)
    return found


def world_size_of(group: Group = None) -> int:
    """Ranks in the group; 1 where there is none."""
    return dist.get_world_size(group) if dist.is_initialized() else 1


def rank_of(group: Group = None) -> int:
    """This rank in the group; 0 where there is none."""
    return dist.get_rank(group) if dist.is_initialized() else 0
