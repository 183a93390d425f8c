"""Save our FSDP with torch's distributed checkpoint, and go on with another number of ranks.

How it works: of a unit's flat tensor rank r holds the r-th of N equal slices, the last ones cut
short where the values end. That is how torch cuts a one-dimensional tensor too, so a shard without
its padding is a DTensor, and torch's checkpoint (`utils.peers.dcp`) can cut it anew for any number
of ranks. The optimizer's state has the shards' shape and goes the same way; its counters are whole
on every rank. Each save is a folder `step-000012`, which has its name only when all is in it.

Left out: buffers, position in the data and random state; how the model is cut into units, which
must be the same when it is loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from utils.peers.dcp import flat_shard, load_sharded, save_sharded
from utils.techniques.flat_shard import FlatShard
from utils.techniques.fsdp import FullySharded
from utils.techniques.sharding import Group, Sharding


def save_fsdp(
    sharded: FullySharded, optimizer: torch.optim.Optimizer, parent: str | Path, step: int
) -> Path:
    """Write weights and optimizer state of a step into a new folder; all ranks call it.

    Returns the folder. Raises CheckpointError on every rank if it exists or a rank cannot write.
    """
    state = _state_of(sharded, optimizer) | {"step": torch.tensor(step)}
    return save_sharded(state, Path(parent) / f"step-{step:06d}", _all_ranks(sharded.sharding))


def load_fsdp(
    sharded: FullySharded, optimizer: torch.optim.Optimizer, place: str | Path
) -> int:
    """Take weights and optimizer state from a folder of `save_fsdp`; returns its step.

    `newest_sharded(parent)` of `utils.peers.dcp` finds the last one. Raises CheckpointError on
    every rank, with nothing changed, if it is unfinished, torn, or of another model or optimizer.
    """
    is_new = not optimizer.state
    if is_new:
        _make_state(optimizer)
    step = torch.tensor(0)
    try:
        state = _state_of(sharded, optimizer) | {"step": step}
        load_sharded(state, place, _all_ranks(sharded.sharding))
    except BaseException:
        if is_new:
            optimizer.state.clear()
        raise
    return int(step)


def _state_of(sharded: FullySharded, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor that lasts, by name; the memory is shared, so that loading fills it."""
    mesh = _mesh_of(sharded)
    state = {}
    for shard in (*sharded.shards, *sharded.frozen):
        kind = "weights" if shard.is_trainable else "frozen"
        state[f"{kind}.{shard.unit.name}"] = _spread(shard.shard_S, shard, mesh)
        for key, value in optimizer.state.get(shard.shard_S, {}).items():
            if isinstance(value, Tensor):
                state[f"optimizer.{shard.unit.name}.{key}"] = _spread(value, shard, mesh)
    return state


def _spread(value: Tensor, shard: FlatShard, mesh: DeviceMesh) -> Tensor:
    """A part of something flat as a DTensor; what is no part, such as a counter, as it is."""
    if value.shape != shard.shard_S.shape:
        return value
    return flat_shard(value, shard.layout.num_values, mesh)


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """An optimizer makes its state in its first step: take one that changes nothing."""
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    gradients = [each.grad for each in parameters]
    for group in optimizer.param_groups:
        group["lr"] = torch.zeros_like(rate) if isinstance(rate := group["lr"], Tensor) else 0.0
    for each in parameters:
        each.grad = torch.zeros_like(each)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for each, gradient in zip(parameters, gradients, strict=True):
        each.grad = gradient


def _all_ranks(sharding: Sharding) -> Group:
    """Who takes part: the group that shares the weights, or, with replicas, everybody."""
    return sharding.group if sharding.num_replicas == 1 else None


def _mesh_of(sharded: FullySharded) -> DeviceMesh:
    """The ranks in a row, or as replicas x ranks that share."""
    sharding, kind = sharded.sharding, sharded.parameters()[0].device.type
    group = sharding.group or dist.group.WORLD
    if sharding.num_replicas == 1:
        return DeviceMesh.from_group(group, kind)
    row = torch.tensor(dist.get_process_group_ranks(group))
    column = torch.tensor(dist.get_process_group_ranks(sharding.replica_group))
    ranks = (column - dist.get_rank())[:, None] + row[None, :]
    groups, names = [sharding.replica_group, group], ("replicas", "shards")
    return DeviceMesh.from_group(groups, kind, ranks, mesh_dim_names=names)
