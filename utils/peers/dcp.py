"""Save sharded training with torch's distributed checkpoint (DCP), and go on with other ranks.

How it works: `state` is a flat dict of tensors by name; a DTensor says which part of a whole this
rank holds, a plain tensor is whole on every rank. Each rank writes its own parts, and DCP's
metadata say where each part lies; loading reads whatever parts overlap the ones wanted now. DCP
writes straight into the folder that it is given, over an older checkpoint. Here all ranks write
into a folder beside it, which takes its name only when everything is there, checksums included:
what has the name is complete, and what came before is untouched.

Left out: position in the data and random state, which belong to the training loop; saving while
training goes on (`dcp.async_save`); sharing one folder between machines.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from utils.peers.agree import agree, from_all, rank_of, world_size_of
from utils.techniques.shard_files import sha256_of
from utils.techniques.zero_checkpoint import CheckpointError

Group = dist.ProcessGroup | None
State = Mapping[str, Tensor]
CHECKSUMS, UNFINISHED = "sha256.json", ".unfinished"


def save_sharded(state: State, folder: str | Path, group: Group = None) -> Path:
    """Write `state` from all ranks, which all call this, into `folder`; returns it.

    Raises CheckpointError on every rank, and leaves nothing under that name, when there is one
    already or when any rank cannot write. A rank that dies leaves only `<folder>.unfinished`, which
    the next save removes.
    """
    folder = Path(folder)
    unfinished = folder.with_name(folder.name + UNFINISHED)
    agree(lambda: _clear(folder, unfinished, rank_of(group)), group)
    storage = {"storage_writer": FileSystemWriter(unfinished)}
    agree(lambda: _with_dcp(dcp.save, state, group, **storage), group)
    mine = agree(lambda: {p.name: sha256_of(p) for p in _my_files(unfinished, group)}, group)
    sums = {name: digest for part in from_all(mine, group) for name, digest in part.items()}
    agree(lambda: rank_of(group) == 0 and _finish(unfinished, folder, sums), group)
    return folder


def load_sharded(state: State, folder: str | Path, group: Group = None) -> None:
    """Fill the tensors of `state` in place from a checkpoint that any number of ranks has written.

    Raises CheckpointError on every rank, before anything has changed, for a folder that is no
    finished checkpoint, one of another model, or one with a missing or damaged file.
    """
    folder = Path(folder)
    agree(lambda: _check(state, folder, group), group)
    storage = {"storage_reader": FileSystemReader(folder)}
    agree(lambda: _with_dcp(dcp.load, state, group, **storage), group)


def save_training(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: str | Path, group: Group = None
) -> Path:
    """`save_sharded` of weights and optimizer state; FSDP2, DDP or a plain model."""
    return save_sharded(_flat(*get_state_dict(model, optimizer)), folder, group)


def load_training(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: str | Path, group: Group = None
) -> None:
    """`load_sharded` into a model and its optimizer, which may be new and sharded otherwise."""
    weights, adam = get_state_dict(model, optimizer)  # gives a new optimizer its state, of zeros
    load_sharded(_flat(weights, adam), folder, group)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=adam)


def flat_shard(shard_S: Tensor, num_values: int, mesh: DeviceMesh) -> DTensor:
    """This rank's shard of a flat tensor of `num_values`, padded to N shards, as a DTensor.

    The padding is no part of it, so that any number of ranks can load it; the memory is shared, so
    that loading fills `shard_S`.
    """
    last = mesh.ndim - 1  # ranks along the others, if there are any, hold copies
    start = mesh.get_local_rank(last) * len(shard_S)
    mine = shard_S.detach()[: max(0, min(len(shard_S), num_values - start))]
    placements, shape = [*[Replicate()] * last, Shard(0)], torch.Size([num_values])
    return DTensor.from_local(mine, mesh, placements, run_check=False, shape=shape, stride=(1,))


def newest_sharded(parent: str | Path) -> Path:
    """The last finished checkpoint in a folder by name, as `step-000012`.

    Raises CheckpointError if there is none.
    """
    finished = sorted(path.parent for path in Path(parent).glob(f"*/{CHECKSUMS}"))
    finished = [each for each in finished if not each.name.endswith(UNFINISHED)]
    if not finished:
        raise CheckpointError(f"{parent} holds no finished checkpoint: start from the beginning.")
    return finished[-1]


def _flat(weights: Mapping[str, Any], adam: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors only: the learning rate and the like are the caller's to choose."""
    flat = {f"weights.{name}": tensor for name, tensor in weights.items()}
    for name, state in adam["state"].items():
        flat |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
    return flat


def _clear(folder: Path, unfinished: Path, rank: int) -> None:
    if folder.exists():
        raise CheckpointError(f"{folder.name} exists already: give each save a folder of its own.")
    if rank == 0:
        shutil.rmtree(unfinished, ignore_errors=True)  # what an interrupted save left
        unfinished.mkdir(parents=True)


def _with_dcp(work: Callable[..., Any], state: State, group: Group, **storage: Any) -> None:
    """DCP's errors, which carry the stacks of all ranks and are no `Exception`, in one sentence."""
    is_alone = world_size_of(group) == 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one process without a group is meant
            work(dict(state), process_group=group, no_dist=is_alone, **storage)
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        raise CheckpointError(f"rank {rank} failed with {reason}") from None


def _my_files(folder: Path, group: Group) -> list[Path]:
    """Every N-th file: all ranks together read each file once."""
    return sorted(folder.iterdir())[rank_of(group) :: world_size_of(group)]


def _finish(unfinished: Path, folder: Path, sums: dict[str, str]) -> None:
    """The checksums, and then the name: the last thing that happens, and it happens at once."""
    (unfinished / CHECKSUMS).write_text(json.dumps(sums, indent=1))
    unfinished.rename(folder)


def _check(state: State, folder: Path, group: Group) -> None:
    """Every rank compares the model; the files are shared out, for reading them all takes time."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        raise CheckpointError(
            f"{folder.name} is no finished checkpoint: take the one before it."
        ) from None
    for name in sorted(sums)[rank_of(group) :: world_size_of(group)]:
        path = folder / name
        if not path.is_file() or sha256_of(path) != sums[name]:
            raise CheckpointError(
                f"{folder.name}/{name} is missing, cut short or damaged: take the checkpoint "
                "before it."
            )
    saved = FileSystemReader(folder).read_metadata().state_dict_metadata
    there = {name: tuple(getattr(each, "size", ())) for name, each in saved.items()}
    here = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            theirs, mine = (shapes.get(name, "missing") for shapes in (there, here))
            raise CheckpointError(
                f"{folder.name} is of another model: {name} is {theirs} there and {mine} here."
            )
