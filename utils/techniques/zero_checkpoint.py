"""Save sharded training on N ranks, go on from it on M.

How it works: each rank writes one file with its shards: the fp32 masters and the optimizer's state
of each unit, without anybody gathering anything; rank 0 adds frozen parameters and buffers, which
are whole everywhere. A manifest, written last, says how the shards were cut (`shard_files`). A rank
of another world size reads from the files the ranges that overlap its own shard. The 16-bit weights
follow from the masters.

Left out: the position in the data, the random state and the learning rate, which belong to the
training loop; optimizers that keep anything but one value a weight and plain numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.techniques.shard_files import (
    CheckpointError,
    agree,
    from_all,
    newest,
    next_attempt,
    read_file,
    read_manifest,
    write_file,
    write_manifest,
)
from utils.techniques.sharded_unit import ShardedUnit
from utils.techniques.zero import ZeroOne

__all__ = ["CheckpointError", "cut", "load_shards", "newest", "save_shards"]


def save_shards(zero: ZeroOne, folder: str | Path, step: int) -> Path:
    """Write `folder/step-000012` from all ranks, which all call this; returns its path.

    Raises CheckpointError on every rank when any of them cannot write; nothing older is touched.
    """
    place, rank = Path(folder) / f"step-{step:06d}", zero.units[0].rank
    attempt = agree(lambda: next_attempt(place), zero.group)
    entry = agree(lambda: write_file(place, rank, attempt, _content(zero, rank)), zero.group)
    about = {"step": step, "attempt": attempt, **_description(zero)}
    manifest = {**about, "files": from_all(entry, zero.group)}
    agree(lambda: rank == 0 and write_manifest(place, manifest), zero.group)
    return place


def load_shards(zero: ZeroOne, place: str | Path) -> int:
    """Fill the shards of `zero` from a checkpoint of any world size; returns its step.

    Raises CheckpointError on every rank, before anything has changed, for a folder without a
    finished checkpoint, one of another model or optimizer, or a damaged file.
    """
    step, states, rest = agree(lambda: _read_shards(zero, Path(place)), zero.group)
    zero.zero_grad()
    for unit, state in zip(zero.units, states, strict=True):
        _fill(zero, unit, state)
    with torch.no_grad():
        for name, tensor in _rest(zero).items():
            tensor.copy_(rest[name])
    zero.gather_weights()
    return step


def cut(pieces: list[tuple[int, Tensor]], start: int, size: int, total: int) -> Tensor:
    """Values start to start + size of a whole; `pieces` are (offset, values), zeros follow `total`.

    This is all there is to resharding: a shard is a range, and ranges overlap.
    """
    result = torch.zeros(size, dtype=pieces[0][1].dtype)
    for offset, piece in pieces:
        first, last = max(start, offset), min(start + size, offset + len(piece), total)
        if first < last:
            result[first - start : last - start] = piece[first - offset : last - offset]
    return result


def _content(zero: ZeroOne, rank: int) -> dict[str, Any]:
    """What this rank alone has, and on rank 0 what all have."""
    states = [_state(zero, unit) for unit in zero.units]
    rest = _rest(zero) if rank == 0 else {}
    # A shard may be a view; saved as it is, it would drag its whole storage into the file.
    return {
        "units": [{key: _own(value) for key, value in state.items()} for state in states],
        "rest": {name: _own(tensor) for name, tensor in rest.items()},
    }


def _state(zero: ZeroOne, unit: ShardedUnit) -> dict[str, Any]:
    state = {"master": unit.master_S.detach(), **zero.optimizer.state.get(unit.master_S, {})}
    for name, value in state.items():
        if isinstance(value, Tensor) and value.dim() and value.shape != unit.master_S.shape:
            raise CheckpointError(
                f"The optimizer's {name} has not one value for each weight, so it can't be cut "
                "for another number of ranks: use an optimizer such as Adam or SGD."
            )
    return state


def _rest(zero: ZeroOne) -> dict[str, Tensor]:
    """What is whole on every rank: frozen parameters, and buffers that belong to the state."""
    sharded = {each for unit in zero.units for each in unit.unit.parameters}
    rest = {name: each for name, each in zero.model.named_parameters() if each not in sharded}
    for path, module in zero.model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                rest[f"{path}.{name}".lstrip(".")] = buffer
    return rest


def _own(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value


def _description(zero: ZeroOne) -> dict[str, Any]:
    """What a checkpoint and the training that reads it must have in common."""
    layouts = [unit.layout for unit in zero.units]
    return {
        "optimizer": type(zero.optimizer).__name__,
        "units": [_shapes(zip(each.names, each.shapes, strict=True)) for each in layouts],
        "rest": _shapes((name, tensor.shape) for name, tensor in _rest(zero).items()),
    }


def _shapes(items: Iterable[tuple[str, Iterable[int]]]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in items}


def _difference(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """What tells two trainings apart, or nothing."""
    if mine["optimizer"] != theirs["optimizer"]:
        return f"its optimizer is {theirs['optimizer']} there and {mine['optimizer']} here"
    here, there = (
        {name: shape for part in (*each["units"], each["rest"]) for name, shape in part.items()}
        for each in (mine, theirs)
    )
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            where = there.get(name, "missing"), here.get(name, "missing")
            return f"{name} is {where[0]} there and {where[1]} here"
    if mine["units"] != theirs["units"]:
        return "its layers are cut into other units, or others are frozen"
    return ""


def _read_shards(zero: ZeroOne, place: Path) -> tuple[int, list[dict[str, Any]], dict[str, Tensor]]:
    """The step, this rank's part of every unit's state, and what is whole on every rank."""
    manifest = read_manifest(place)
    if manifest is None:
        raise CheckpointError(f"{place} is no finished checkpoint: take the one before it.")
    difference = _difference(_description(zero), manifest)
    if difference:
        raise CheckpointError(f"{place} is of another training: {difference}.")
    files = [read_file(place, entry) for entry in manifest["files"]]
    states = [
        _my_part(unit, [each["units"][i] for each in files]) for i, unit in enumerate(zero.units)
    ]
    return manifest["step"], states, files[0]["rest"]


def _my_part(unit: ShardedUnit, states: list[dict[str, Any]]) -> dict[str, Any]:
    size, total = unit.layout.shard_values, unit.layout.num_values
    result = {}
    for key, first in states[0].items():
        if not isinstance(first, Tensor) or first.dim() == 0:
            result[key] = _own(first)  # such as Adam's number of steps
            continue
        pieces = [(i * len(first), state[key]) for i, state in enumerate(states)]
        result[key] = cut(pieces, unit.rank * size, size, total)
    return result


@torch.no_grad()
def _fill(zero: ZeroOne, unit: ShardedUnit, state: dict[str, Any]) -> None:
    unit.master_S.copy_(state.pop("master"))
    device = unit.master_S.device
    zero.optimizer.state[unit.master_S] = {
        key: value.to(device) if isinstance(value, Tensor) and value.dim() else value
        for key, value in state.items()
    }
    unit.round_master()
