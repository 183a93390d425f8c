"""The ladder for `make record`: on a CPU the lesson's own climb, on a GPU that of GPT-2 124M.

How it works: one recorded row a rung (`utils.experiments.ladder_results.row_of`). On a GPU the
bigger batch is the largest, by doubling, whose step fits beside the models of the other rungs,
which live at the same time. A rung that the machine cannot run has a row all the same, which says
why; nothing stands in for it.

Left out: the course's own FSDP and YaFSDP on GPUs, where torch's FSDP2 takes their place or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.experiments.ladder import CONFIG, RUNGS, Rung, RungResult, climb, rungs_of, weigh
from utils.experiments.ladder_results import row_of

GPU_CONFIG, GPU_BATCH = GPTConfig(12, 12, 768, 1024, 50304), 8
GPU_CLIMB = {"num_rounds": 5, "budget_s": 60.0, "backend": None}
GPU_SHARE, GPU_DOUBLINGS = 0.9, 4  # of its memory, for the bigger batch
KEPT_BYTES = 16  # per parameter of a model that waits for its turn: weights, gradients, Adam


def ladder_sweep(device: str, **options: Any) -> list[dict[str, Any]]:
    """One row a rung; `options` are those of `climb`, for a shorter one."""
    if device == "cpu":
        return [row_of(each, options.get("config", CONFIG)) for each in climb(**options)]
    config = options.pop("config", GPU_CONFIG)
    memory_bytes = torch.cuda.get_device_properties(0).total_memory
    rungs = gpu_rungs(config, memory_bytes)
    problems = {rung: gpu_problem(rung, torch.cuda.device_count()) for rung in rungs}
    able = [rung for rung in rungs if not problems[rung]]
    climbed = {each.rung: each for each in climb(config, rungs=able, **GPU_CLIMB | options)}
    results = [climbed.get(each, RungResult(each, problem=problems[each])) for each in rungs]
    return [row_of(each, config) for each in results]


def gpu_rungs(config: GPTConfig, memory_bytes: int, batch_size: int = GPU_BATCH) -> list[Rung]:
    """The eight rungs with the largest of some doubled batches, and torch's DDP and FSDP."""
    again = next(each.recipe for each in rungs_of(batch_size) if each.name == "checkpointing")
    batches = [batch_size << power for power in range(1, 1 + GPU_DOUBLINGS)]
    tried = [Rung(str(size), replace(again, batch_size=size)) for size in batches]
    peaks = [size.peak_bytes if size else None for size in weigh(tried, config, None)]
    waiting_bytes = (len(RUNGS) - 1) * KEPT_BYTES * count_parameters(config).total
    larger = largest_that_fits(batches, peaks, int(GPU_SHARE * memory_bytes) - waiting_bytes)
    return [
        Rung(each.name, replace(each.recipe, library="torch"))
        if each.recipe.method in ("ddp", "fsdp") else each
        for each in rungs_of(batch_size, larger or batch_size)
    ]  # fmt: skip


def largest_that_fits(
    batches: Sequence[int], peaks: Sequence[int | None], room_bytes: int
) -> int | None:
    """The largest batch whose peak (None: memory ran out) is within the room; None for none."""
    pairs = zip(batches, peaks, strict=True)
    return max((size for size, peak in pairs if peak and peak <= room_bytes), default=None)


def gpu_problem(rung: Rung, num_gpus: int) -> str:
    """Why so many GPUs cannot run the rung; empty if they can."""
    recipe = rung.recipe
    if recipe.method == "yafsdp":
        return "not run: the course's YaFSDP computes on processors only"
    if recipe.num_ranks > num_gpus:
        have = f"{num_gpus} GPU" + "s" * (num_gpus != 1)
        return f"not run: {recipe.num_ranks} ranks need a GPU each, and there is {have}"
    return ""
