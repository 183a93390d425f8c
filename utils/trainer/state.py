"""A training state on disk: complete under its name, or absent.

How it works: all ranks write into `step-000040.unfinished`, each system in its own format, and last
rank 0 adds `trainer.json` (step, seconds, GPU-seconds, loss scale, and for DeepSpeed the files'
checksums) and gives the folder its name. torch's systems and our FSDP save through torch's
distributed checkpoint and our ZeRO in shard files, which any number of ranks can read; DeepSpeed's
own files fit as many ranks as wrote them. Weights that are no numbers are not saved.

Left out: machines that do not share a folder; saving while training goes on.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from utils.peers import System
from utils.peers.dcp import load_training, save_training
from utils.peers.deepspeed_zero import DeepSpeedSystem
from utils.peers.our_yafsdp import OurYaFsdp
from utils.peers.ours import OurFsdp, OurZero
from utils.techniques.fsdp_checkpoint import load_fsdp, save_fsdp
from utils.techniques.shard_files import sha256_of
from utils.techniques.zero_checkpoint import load_shards, save_shards
from utils.trainer.group import together
from utils.trainer.settings import TrainerError

UNFINISHED, SHARDS, ABOUT = ".unfinished", "shards", "trainer.json"


def optimizer_of(system: System) -> torch.optim.Optimizer:
    """torch's AdamW under any system: its groups have the rates, its parameters fp32 values."""
    if isinstance(system, OurZero):
        return system.zero.optimizer
    return getattr(system, "torch_optimizer", None) or system.optimizer


def step_name(step: int) -> str:
    """The name of a step's folder."""
    return f"step-{step:06d}"


def save_state(system: System, folder: Path, step: int, about: dict[str, Any]) -> Path:
    """Write `folder/step-000040` from all ranks; raises TrainerError on all, and leaves nothing.

    `about` is kept in trainer.json; an older folder of that name must be out of the way.
    """
    place = folder / step_name(step)
    unfinished = place.with_name(place.name + UNFINISHED)
    try:
        together(lambda: _refuse_nan(system, step))
        together(lambda: dist.get_rank() == 0 and _fresh(unfinished))
        together(lambda: _save_system(system, unfinished, step))
        together(lambda: dist.get_rank() == 0 and _finish(system, unfinished, place, about))
    except TrainerError:
        if dist.get_rank() == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return place


def load_state(system: System, place: Path, about: dict[str, Any]) -> None:
    """Take the state of `place`, whose trainer.json is `about`; raises TrainerError on all ranks.

    A damaged or foreign one is refused before anything has changed.
    """
    together(lambda: _load_system(system, place, about))
    scaler = getattr(system, "scaler", None)
    if scaler is not None:
        scaler.load_state_dict(about["scaler"])


def read_about(place: Path) -> dict[str, Any]:
    """What trainer.json says. Raises TrainerError for one that is missing or damaged."""
    try:
        about = json.loads((place / ABOUT).read_text())
        numbers = [about[name] for name in ("step", "seconds", "gpu_seconds", "num_ranks")]
        if all(math.isfinite(number) for number in numbers):
            return about
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise TrainerError(f"{place.name}/{ABOUT} is missing or damaged.")


def _refuse_nan(system: System, step: int) -> None:
    for group in optimizer_of(system).param_groups:
        for each in group["params"]:
            local = getattr(each, "_local_tensor", each).detach()
            if not torch.isfinite(local).all():
                raise TrainerError(
                    f"Weights after step {step} are no numbers any more and are not saved: lower "
                    "the learning rate and start again (in another --folder if something is saved)."
                )


def _fresh(unfinished: Path) -> None:
    shutil.rmtree(unfinished, ignore_errors=True)  # what an interrupted save has left
    unfinished.mkdir(parents=True)


def _save_system(system: System, unfinished: Path, step: int) -> None:
    if isinstance(system, OurZero):
        save_shards(system.zero, unfinished, step)
    elif isinstance(system, OurYaFsdp):
        save_fsdp(system.sharded, system.optimizer, unfinished, step)
    elif isinstance(system, OurFsdp):
        save_fsdp(system.fsdp, system.optimizer, unfinished, step)
    elif isinstance(system, DeepSpeedSystem):
        system.engine.save_checkpoint(str(unfinished), tag=SHARDS)
    else:
        save_training(system.model, system.optimizer, unfinished / SHARDS)


def _finish(system: System, unfinished: Path, place: Path, about: dict[str, Any]) -> None:
    """The name comes last, and at once."""
    named_by_step = unfinished / place.name
    if named_by_step.exists():
        named_by_step.rename(unfinished / SHARDS)
    about = about | {"num_ranks": dist.get_world_size()}
    if getattr(system, "scaler", None) is not None:
        about["scaler"] = system.scaler.state_dict()
    if isinstance(system, DeepSpeedSystem):
        files = sorted((unfinished / SHARDS).iterdir())
        about["files"] = {path.name: sha256_of(path) for path in files}
    (unfinished / ABOUT).write_text(json.dumps(about, indent=1))
    unfinished.rename(place)


def _load_system(system: System, place: Path, about: dict[str, Any]) -> None:
    shards = place / SHARDS
    if isinstance(system, OurZero):
        load_shards(system.zero, shards)
    elif isinstance(system, OurYaFsdp):
        load_fsdp(system.sharded, system.optimizer, shards)
    elif isinstance(system, OurFsdp):
        load_fsdp(system.fsdp, system.optimizer, shards)
    elif isinstance(system, DeepSpeedSystem):
        _load_deepspeed(system, place, about)
    else:
        load_training(system.model, system.optimizer, shards)


def _load_deepspeed(system: DeepSpeedSystem, place: Path, about: dict[str, Any]) -> None:
    """DeepSpeed itself finds no damage, so every rank compares the checksums first."""
    files = about.get("files", {})
    for name, digest in files.items():
        path = place / SHARDS / name
        if not path.is_file() or sha256_of(path) != digest:
            raise TrainerError(f"{place.name}/{SHARDS}/{name} is missing, cut short or damaged.")
    path, _ = system.engine.load_checkpoint(str(place), tag=SHARDS)
    if path is None:
        raise TrainerError(f"DeepSpeed cannot read {place.name}.")
