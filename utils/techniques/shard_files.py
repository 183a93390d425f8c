"""The files of a checkpoint that many ranks write: one a rank, and a manifest that makes it count.

How it works: the manifest names each file with its size and checksum and is put in place last, in
one move. Until then the folder holds what it held before: a folder without a manifest is a save
that did not finish, and a second save into the same folder writes under new names, so that the old
manifest and its files stay good to the end. What fails on one rank is raised on all of them.

Left out: waiting until the disk has really written; a torn file is found by its checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

MANIFEST, FORMAT = "manifest.json", 1
Group = dist.ProcessGroup | None
T = TypeVar("T")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message says why and what to do."""


def newest(folder: str | Path) -> Path:
    """The newest finished checkpoint in `folder`. Raises CheckpointError if there is none."""
    found = {place: read_manifest(place) for place in Path(folder).glob("step-*")}
    finished = {place: manifest["step"] for place, manifest in found.items() if manifest}
    if not finished:
        raise CheckpointError(f"{folder} holds no finished checkpoint: start from the beginning.")
    return max(finished, key=finished.__getitem__)


def read_manifest(place: Path) -> dict[str, Any] | None:
    """What was saved in `place`; None if nothing was, or not to the end.

    Raises CheckpointError for one that another version of this module wrote.
    """
    try:
        manifest = json.loads((place / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or "format" not in manifest:
        return None
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{place} has format {manifest['format']}, and this version reads format {FORMAT}: "
            "use the version that wrote it."
        )
    return manifest


def next_attempt(place: Path) -> int:
    """The number that tells the next save into `place` from the one that its manifest names."""
    manifest = read_manifest(place)
    return manifest["attempt"] + 1 if manifest else 0


def write_file(place: Path, rank: int, attempt: int, content: Any) -> dict[str, Any]:
    """Write one rank's file; its entry for the manifest. A file that fails half-way is removed."""
    path = place / f"rank-{rank:04d}.{attempt}.pt"
    try:
        place.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        return {"file": path.name, "num_bytes": path.stat().st_size, "sha256": sha256_of(path)}
    except (OSError, RuntimeError) as error:
        _remove(path)
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{path} cannot be written ({reason}): choose a folder that all ranks can write to."
        ) from error


def write_manifest(place: Path, content: dict[str, Any]) -> None:
    """Make the files that `content` names the checkpoint, then remove all other ranks' files."""
    unfinished = place / (MANIFEST + ".tmp")
    unfinished.write_text(json.dumps({"format": FORMAT, **content}, indent=1))
    unfinished.replace(place / MANIFEST)
    named = {entry["file"] for entry in content["files"]}
    for path in place.glob("rank-*.pt"):
        if path.name not in named:
            _remove(path)


def read_file(place: Path, entry: dict[str, Any]) -> Any:
    """What a rank wrote. Raises CheckpointError unless it is there as it was written."""
    path = place / entry["file"]
    if not path.is_file() or path.stat().st_size != entry["num_bytes"]:
        raise CheckpointError(f"{path} is missing or cut short: take the checkpoint before it.")
    if sha256_of(path) != entry["sha256"]:
        raise CheckpointError(f"{path} is damaged: take the checkpoint before it.")
    return torch.load(path, weights_only=True, mmap=True)


def agree(work: Callable[[], T], group: Group = None) -> T:
    """This rank's result of `work()`. Raises CheckpointError on every rank if it fails on any."""
    result, error = None, None
    try:
        result = work()
    except Exception as reason:  # whatever it is, the others must not wait for this rank
        error = str(reason) or type(reason).__name__
    for rank, words in enumerate(from_all(error, group)):
        if words is not None:
            raise CheckpointError(f"rank {rank}: {words}")
    return result


def from_all(mine: Any, group: Group = None) -> list[Any]:
    """Every rank's small object, in rank order."""
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, mine, group=group)
    return found


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # such as a folder that is none
        pass


def sha256_of(path: Path) -> str:
    """The checksum of a file, read in pieces of a mebibyte."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
