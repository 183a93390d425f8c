"""What the bytes that ZeRO frees buy: a larger batch in the same memory, and so more throughput.

How it works: a rank has so many bytes. What is left beside weights, gradients and optimizer state
holds activations, and so sequences (`batches_that_fit`, by formula). `sequences_per_second` times
each stage at its batch on real ranks, in turn, round after round, so that a slow moment of the
machine hits all of them; `peaks` asks the memory meter whether those batches really fit.

Left out: that a larger batch needs fewer steps only up to a point (lesson 06).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.model import build_gpt
from utils.peers import MakeSystem, System, TrainingJob
from utils.peers.ddp import OurDdpSystem
from utils.peers.harness import measure_system
from utils.peers.ours import zero_system
from utils.predict import saved_activation_bytes
from utils.ranks import run_ranks
from utils.zero_bill import FP32, STAGES, held_per_parameter, largest_batch

MODEL = GPTConfig(num_layers=4, num_heads=4, model_dim=128, context_length=16, vocab_size=256)
FIT_HEADERS = ("", "sequences that fit", "peak, MB", "fits", "with 64 ranks")
Entry = tuple[int, int]  # stage, sequences on each rank


def bytes_per_sequence(config: GPTConfig) -> int:
    """fp32 activations that one sequence keeps for backward, and its logits' two gradients."""
    logits = 4 * config.context_length * config.vocab_size
    return saved_activation_bytes(config, 1, config.context_length) + 2 * logits


def batches_that_fit(
    memory_bytes: float, num_ranks: int, config: GPTConfig = MODEL
) -> dict[int, int]:
    """Sequences that fit on one rank beside what it holds, by stage; fp32 weights."""
    num_parameters, each = count_parameters(config).total, bytes_per_sequence(config)
    return {
        stage: largest_batch(
            held_per_parameter(stage, num_ranks, FP32).total * num_parameters, each, memory_bytes
        )
        for stage in STAGES
    }


def system_of(stage: int) -> MakeSystem:
    """Our data parallelism as stage 0, our ZeRO as the others."""
    return zero_system(stage) if stage else OurDdpSystem


def peaks(
    batches: Mapping[int, int], num_ranks: int = 2, config: GPTConfig = MODEL
) -> dict[int, int]:
    """The most bytes live on one rank in a step of each stage with its batch, by the meter."""
    return {
        stage: max(
            size.peak_bytes
            for size in run_ranks(
                measure_system, num_ranks, system_of(stage),
                TrainingJob(config, batch_size=num_ranks * batch), quiet=True,
            )
        )
        for stage, batch in batches.items()
    }  # fmt: skip


def fit_rows(memory_bytes: float, num_ranks: int) -> list[tuple[object, ...]]:
    """Rows under FIT_HEADERS, one a stage: the batch by formula, and its peak by the meter."""
    fit, with_64 = (batches_that_fit(memory_bytes, number) for number in (num_ranks, 64))
    peak = peaks(fit, num_ranks)
    names = [f"stage {stage}" if stage else "data parallel" for stage in STAGES]
    return [
        (name, fit[stage], f"{peak[stage] / 1e6:.1f}", str(peak[stage] <= memory_bytes),
         with_64[stage])
        for stage, name in enumerate(names)
    ]  # fmt: skip


def step_seconds(
    rank: int, world_size: int, entries: Sequence[Entry], num_rounds: int, config: GPTConfig
) -> list[list[float]]:
    """Seconds of one step of each entry, once a round, after a round that does not count."""
    job = TrainingJob(config)
    systems = {
        stage: system_of(stage)(build_gpt(config), rank, world_size, job)
        for stage in {stage: None for stage, _ in entries}
    }
    rounds = []
    for _ in range(1 + num_rounds):
        rounds.append([_seconds(systems[stage], batch, config) for stage, batch in entries])
    return rounds[1:]


def sequences_per_second(
    entries: Sequence[Entry], num_rounds: int = 7, num_ranks: int = 2, config: GPTConfig = MODEL
) -> list[float]:
    """All ranks' sequences over the median time of a step, for each (stage, batch of a rank)."""
    by_rank = run_ranks(step_seconds, num_ranks, entries, num_rounds, config)
    slowest_s = torch.tensor(by_rank).amax(dim=0)  # num_rounds x entries
    return [
        num_ranks * batch / statistics.median(times_s.tolist())
        for (_, batch), times_s in zip(entries, slowest_s.T, strict=True)
    ]


def rates_of(
    fit: Mapping[int, int], alone: Sequence[int] = (1, 2, 4, 8, 16)
) -> tuple[dict[int, float], dict[int, float]]:
    """Sequences a second of each stage with its batch, and of data parallelism with any batch."""
    rates = sequences_per_second([*fit.items(), *((0, batch) for batch in alone)])
    return dict(zip(fit, rates, strict=False)), dict(zip(alone, rates[len(fit) :], strict=True))


def _seconds(system: System, batch: int, config: GPTConfig) -> float:
    tokens_BT = torch.randint(config.vocab_size, (batch, config.context_length))
    dist.barrier()
    start_s = time.perf_counter()
    loss: Tensor = system.backward(tokens_BT, tokens_BT, True)
    system.step()
    del loss
    return time.perf_counter() - start_s
