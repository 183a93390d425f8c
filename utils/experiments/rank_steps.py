"""Two ranks train the same GPT by every method: seconds of a step, bytes held, bytes sent.

How it works: each method trains under the harness of `utils.peers`; rounds of all methods follow
each other, so that a slow moment of the machine hits all, and the median of the rounds counts.
Bytes are those of the rank with the most. On processors ranks talk by gloo; on GPUs by NCCL, one
GPU a rank, and only methods that move a model to its GPU take part.

Left out: more ranks; networks between machines; a batch that grows where memory is spared.
"""

from __future__ import annotations

import statistics
import time
from itertools import product

import torch
import torch.distributed as dist

from utils.config import GPTConfig
from utils.experiments.registry import NotHere, Rows
from utils.peers.harness import SystemRun, measure_system, train_system
from utils.ranks import run_ranks
from utils.recipe import TrainingRecipe
from utils.trainer.systems import job_of, system_of

CPU_METHODS = (
    ("ddp", "torch"), ("ddp", "ours"), ("zero1", "ours"), ("zero2", "ours"), ("zero3", "ours"),
    ("fsdp", "torch"), ("fsdp", "ours"), ("yafsdp", "ours"),
)  # fmt: skip
GPU_METHODS = (("ddp", "torch"), ("ddp", "ours"), ("fsdp", "torch"))
CPU_CONFIG = GPTConfig(6, 4, 128, 64, 256)
GPU_CONFIG = GPTConfig(12, 12, 768, 1024, 50304)
NUM_RANKS, NUM_STEPS = 2, 8
CPU_SIZES = tuple(4**k for k in range(6, 13))  # bytes: 4 KiB to 16 MiB
GPU_SIZES = tuple(4**k for k in range(6, 15))


def rank_sweep(device: str, num_rounds: int = 3) -> Rows:
    """One row a method. Raises NotHere where two ranks would share a device."""
    backend = backend_of(device)
    config = CPU_CONFIG if device == "cpu" else GPU_CONFIG
    recipes = [
        TrainingRecipe(method=method, library=library, batch_size=4, num_ranks=NUM_RANKS)
        for method, library in (CPU_METHODS if device == "cpu" else GPU_METHODS)
    ]
    runs: dict[TrainingRecipe, list[SystemRun]] = {recipe: [] for recipe in recipes}
    for _, recipe in product(range(num_rounds), recipes):
        job = job_of(recipe, config, num_steps=NUM_STEPS)
        runs[recipe] += run_ranks(
            train_system, NUM_RANKS, system_of(recipe), job, backend=backend, quiet=True
        )
    return [_row(recipe, config, runs[recipe], backend) for recipe in recipes]


def collective_sweep(device: str, num_runs: int = 15) -> Rows:
    """Median seconds of an all-reduce on two ranks, by its bytes."""
    backend = backend_of(device)
    sizes = CPU_SIZES if device == "cpu" else GPU_SIZES
    found = run_ranks(
        all_reduce_times, NUM_RANKS, sizes, device, num_runs, backend=backend, quiet=True
    )
    return [
        {"backend": backend, "num_ranks": NUM_RANKS, "bytes": num_bytes, "seconds": max(times)}
        for num_bytes, *times in zip(sizes, *found, strict=True)
    ]


def all_reduce_times(
    rank: int, world_size: int, sizes_bytes: tuple[int, ...], device: str, num_runs: int
) -> list[float]:
    """Median seconds for each size; a worker."""
    medians = []
    for num_bytes in sizes_bytes:
        tensor, times_s = torch.zeros(num_bytes // 4, device=device), []
        for _ in range(2 + num_runs):
            dist.barrier()
            start_s = time.perf_counter()
            dist.all_reduce(tensor)
            if device != "cpu":
                torch.cuda.synchronize()
            times_s.append(time.perf_counter() - start_s)
        medians.append(statistics.median(times_s[2:]))
    return medians


def backend_of(device: str) -> str:
    """gloo or nccl; NotHere for fewer than two GPUs."""
    if device == "cpu":
        return "gloo"
    num_gpus = torch.cuda.device_count()
    if num_gpus < NUM_RANKS:
        raise NotHere(f"needs two GPUs, and this machine has {num_gpus}")
    return "nccl"


def _row(
    recipe: TrainingRecipe, config: GPTConfig, runs: list[SystemRun], backend: str
) -> dict[str, object]:
    sizes = run_ranks(
        measure_system, NUM_RANKS, system_of(recipe), job_of(recipe, config), backend=backend,
        quiet=True,
    )  # fmt: skip
    return {
        "recipe": recipe.name,
        "method": recipe.method,
        "library": recipe.library,
        "num_ranks": NUM_RANKS,
        "backend": backend,
        "seconds": statistics.median(run.median_step_s for run in runs),
        "held_bytes": max(each.held_bytes for each in sizes),
        "peak_bytes": max(each.peak_bytes for each in sizes),
        "sent_bytes": max(run.sent_bytes for run in runs),
    }
