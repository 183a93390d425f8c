"""How a model is spread over ranks: who shares weights with whom, and in which formats.

How it works: all ranks share one copy, or, in hybrid sharding, neighbours share one and each copy
has its replicas elsewhere: gathers stay among neighbours, where links are fast, and only shards of
gradients travel further. `group_of_two_levels` makes the two groups that a rank then belongs to.

Left out: more than two levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from utils.ranks.collectives import reduce_scatter
from utils.techniques.ring import ring_reduce_scatter

Group = dist.ProcessGroup | None
Scatter = Callable[[Tensor, Tensor, int, int, Group], None]


@dataclass(frozen=True)
class Sharding:
    """How a model is spread and in which formats it computes; one object for all of its units.

    `world_size` ranks share the weights, in `group`; `rank` is this one's place in it. With hybrid
    sharding `num_replicas` such groups exist, and `replica_group` holds the ranks with this rank's
    place in each of them.
    """

    rank: int
    world_size: int
    group: Group = None
    num_replicas: int = 1
    replica_group: Group = None
    compute_dtype: torch.dtype = torch.float32
    reduce_dtype: torch.dtype = torch.float32
    scatter: Scatter | None = None  # None: the ring on gloo, NCCL's own on GPUs


def group_of_two_levels(
    rank: int, world_size: int, num_sharing: int
) -> tuple[dist.ProcessGroup, dist.ProcessGroup]:
    """(the group that shares weights, the group of replicas) of a rank; all ranks call it.

    Neighbours share: ranks 0 .. num_sharing - 1 are the first group. Raises ValueError unless
    `num_sharing` divides the world size.
    """
    if num_sharing < 1 or world_size % num_sharing:
        raise ValueError(
            f"{world_size} ranks cannot form groups of {num_sharing}: take a divisor."
        )
    mine: dict[str, dist.ProcessGroup] = {}
    for first in range(0, world_size, num_sharing):
        group = dist.new_group(list(range(first, first + num_sharing)))
        if first <= rank < first + num_sharing:
            mine["sharing"] = group
    for place in range(num_sharing):
        group = dist.new_group(list(range(place, world_size, num_sharing)))
        if rank % num_sharing == place:
            mine["replicas"] = group
    return mine["sharing"], mine["replicas"]


def best_scatter(group: Group) -> Scatter:
    """gloo's own reduce-scatter sends twice as much as it must, so the ring replaces it there."""
    return ring_reduce_scatter if dist.get_backend(group) == "gloo" else _plain_scatter


def _plain_scatter(
    shard_S: Tensor, flat_P: Tensor, rank: int, world_size: int, group: Group
) -> None:
    reduce_scatter(shard_S, flat_P, group=group)
