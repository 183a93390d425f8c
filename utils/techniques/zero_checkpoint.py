"""Save sharded training on N ranks, go on from it on M.

How it works: each rank writes one file with its shards: the fp32 masters and the optimizer's state
of each unit, without anybody gathering anything. A manifest says how the shards were cut and names
each file's size and checksum; it is written last, so a folder without one is a save that did not
finish and the one before it still counts. A rank of another world size reads from the files the
ranges that overlap its own shard. The 16-bit weights follow from the masters.

Left out: the position in the data and the random state, which belong to the training loop.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils.techniques.sharded_unit import ShardedUnit
from utils.techniques.zero import ZeroOne

MANIFEST, FORMAT = "manifest.json", 1
T = TypeVar("T")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message says why and what to do."""


def save_shards(zero: ZeroOne, folder: str | Path, step: int) -> Path:
    """Write `folder/step-000012` from all ranks, which all call this; returns its path.

    Raises CheckpointError on every rank when any of them cannot write; nothing older is touched.
    """
    place = Path(folder) / f"step-{step:06d}"
    rank = zero.units[0].rank
    if rank == 0 and _manifest(place) is None:
        shutil.rmtree(place, ignore_errors=True)  # what an interrupted save left
    dist.barrier(zero.group)
    files = _from_all(zero, _agree(zero, lambda: _write_shards(zero, place, rank)))
    _agree(zero, lambda: rank == 0 and _write_manifest(zero, place, step, files))
    return place


def load_shards(zero: ZeroOne, place: str | Path) -> int:
    """Fill the shards of `zero` from a checkpoint of any world size; returns its step.

    Raises CheckpointError on every rank, before anything has changed, for a folder without a
    finished checkpoint, one of another model or optimizer, or a damaged file.
    """
    place = Path(place)
    step, states = _agree(zero, lambda: _read_shards(zero, place))
    for unit, state in zip(zero.units, states, strict=True):
        _fill(zero, unit, state)
    zero.gather_weights()
    return step


def newest(folder: str | Path) -> Path:
    """The newest finished checkpoint in `folder`. Raises CheckpointError if there is none."""
    finished = [each for each in sorted(Path(folder).glob("step-*")) if _manifest(each)]
    if not finished:
        raise CheckpointError(f"{folder} holds no finished checkpoint: start from the beginning.")
    return finished[-1]


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


def _write_shards(zero: ZeroOne, place: Path, rank: int) -> dict[str, Any]:
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"rank-{rank:04d}.pt"
    states = [
        {"master": unit.master_S.detach(), **zero.optimizer.state[unit.master_S]}
        for unit in zero.units
    ]
    # A shard may be a view; saved as it is, it would drag its whole storage into the file.
    owned = [{key: _own(value) for key, value in state.items()} for state in states]
    torch.save(owned, path)
    return {"file": path.name, "num_bytes": path.stat().st_size, "sha256": _hash(path)}


def _own(value: Any) -> Any:
    return value.cpu().clone() if isinstance(value, Tensor) else value


def _write_manifest(zero: ZeroOne, place: Path, step: int, files: list[Any]) -> None:
    units = [_shapes(unit) for unit in zero.units]
    text = json.dumps({"format": FORMAT, "step": step, "units": units, "files": files}, indent=1)
    unfinished = place / (MANIFEST + ".tmp")
    unfinished.write_text(text)
    unfinished.replace(place / MANIFEST)


def _shapes(unit: ShardedUnit) -> dict[str, list[int]]:
    layout = unit.layout
    return {name: list(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}


def _read_shards(zero: ZeroOne, place: Path) -> tuple[int, list[dict[str, Any]]]:
    """The step, and this rank's part of every unit's state."""
    manifest = _manifest(place)
    if manifest is None:
        raise CheckpointError(f"{place} is no finished checkpoint: take the one before it.")
    difference = _difference([_shapes(unit) for unit in zero.units], manifest["units"])
    if difference:
        raise CheckpointError(f"{place} is of another model: {difference}.")
    files = [_load(place, entry) for entry in manifest["files"]]
    states = [_my_part(unit, [each[i] for each in files]) for i, unit in enumerate(zero.units)]
    return manifest["step"], states


def _my_part(unit: ShardedUnit, states: list[dict[str, Any]]) -> dict[str, Any]:
    size, total = unit.layout.shard_values, unit.layout.num_values
    result = {}
    for key, first in states[0].items():
        if not isinstance(first, Tensor) or first.dim() == 0:
            result[key] = first  # such as Adam's number of steps
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


def _difference(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """What tells two models apart, or nothing."""
    here, there = ({k: v for unit in units for k, v in unit.items()} for units in (mine, theirs))
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            where = there.get(name, "missing"), here.get(name, "missing")
            return f"{name} is {where[0]} there and {where[1]} here"
    return "" if mine == theirs else "its layers are cut into other units"


def _load(place: Path, entry: dict[str, Any]) -> list[dict[str, Any]]:
    path = place / entry["file"]
    if not path.is_file() or path.stat().st_size != entry["num_bytes"]:
        raise CheckpointError(f"{path} is missing or cut short: take the checkpoint before it.")
    if _hash(path) != entry["sha256"]:
        raise CheckpointError(f"{path} is damaged: take the checkpoint before it.")
    return torch.load(path, weights_only=True, mmap=True)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _manifest(place: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((place / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if manifest.get("format") == FORMAT else None


def _agree(zero: ZeroOne, work: Callable[[], T]) -> T:
    """This rank's result of `work()`; if it fails on any rank, the same error on every rank."""
    result, error = None, None
    try:
        result = work()
    except (OSError, CheckpointError, RuntimeError) as reason:
        error = str(reason)
    for rank, reason in enumerate(_from_all(zero, error)):
        if reason is not None:
            raise CheckpointError(f"rank {rank}: {reason}")
    return result


def _from_all(zero: ZeroOne, mine: Any) -> list[Any]:
    """Every rank's small object, in rank order."""
    found: list[Any] = [None] * dist.get_world_size(zero.group)
    dist.all_gather_object(found, mine, group=zero.group)
    return found
