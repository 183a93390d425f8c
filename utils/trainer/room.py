"""Whether a recipe fits into the memory that is free, asked before anything is claimed or made.

How it works: the planner's peak of a rank (`utils.planning.recipe_bytes`), or the whole model,
with which every rank begins, if that is more. On processors the ranks of a machine share what is
available there, less where a container (a control group) has a limit; on GPUs each rank has one. A
system that kills a process whose memory runs out says nothing, so this must be said before.

Left out: swap, with which a step takes minutes; what the allocator, NCCL and Python take beside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from utils.check_hardware import memory_bytes
from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.planning.recipe_bytes import recipe_bytes
from utils.recipe import TrainingRecipe
from utils.trainer.settings import TrainerError

FP32_BYTES, BYTES_PER_GB = 4, 1e9
ADVICE = (
    "take a smaller --batch-size with more --micro-batches, --checkpointing blocks, shards on more "
    "ranks, or a smaller model."
)
TOO_LARGE = f"The recipe does not fit into this rank's memory: {ADVICE}"
CGROUP_FILES = (  # of version 2 and version 1: the limit, and what counts towards it
    ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)  # fmt: skip
CACHES = ("active_file", "inactive_file")  # counted, but given back when memory is needed


def check_room(recipe: TrainingRecipe, config: GPTConfig, device: torch.device) -> None:
    """Raises TrainerError, with both numbers, where the prediction exceeds what is free."""
    on_gpu = device.type == "cuda"
    needed_bytes = rank_bytes(recipe, config, "nccl" if on_gpu else "gloo")
    num_ranks = 1 if on_gpu else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free_bytes = free_gpu_bytes(device) if on_gpu else available_bytes()
    if free_bytes is None or num_ranks * needed_bytes <= free_bytes:
        return
    each = f"{num_ranks} ranks of {_gb(needed_bytes)}, " if num_ranks > 1 else ""
    where = "GPU" if on_gpu else "machine"
    raise TrainerError(
        f"The recipe needs {_gb(num_ranks * needed_bytes)} ({each}as predicted), and this {where} "
        f"has {_gb(free_bytes)} free: {ADVICE}"
    )


def rank_bytes(recipe: TrainingRecipe, config: GPTConfig, backend: str) -> int:
    """The predicted peak of a rank; at least the fp32 model that it is made from."""
    whole_bytes = FP32_BYTES * count_parameters(config).total
    return max(whole_bytes, recipe_bytes(recipe, config, backend=backend).peak.total)


def free_gpu_bytes(device: torch.device) -> int:
    """What nobody uses on the GPU, this process's own empty blocks included."""
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return free_bytes + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that new programs can have; without Linux all of it, None where it is unknown."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        free_bytes = 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return memory_bytes(root)
    return max(0, min([free_bytes, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """For each control group above this process: its limit less what it uses."""
    for folder in _groups(root):
        for limit, usage in CGROUP_FILES:
            try:
                left_bytes = int((folder / limit).read_text()) - int((folder / usage).read_text())
                lines = (folder / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):  # another version's name, or "max": no limit
                continue
            counts = dict(line.split() for line in lines if len(line.split()) == 2)
            yield left_bytes + sum(int(counts.get(name, 0)) for name in CACHES)


def _groups(root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        place = base / path.strip("/")
        yield from (each for each in (place, *place.parents) if each.is_relative_to(base))


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / BYTES_PER_GB:,.2f} GB"
