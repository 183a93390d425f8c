"""How long a data-parallel step and its messages take on this machine, on 1, 2 or more ranks.

How it works: `step_seconds` and `all_reduce_seconds` are workers for `run_ranks`. `scaling_rounds`
runs one rank and several in turn, round after round, so that a slow moment of the machine hits
both; ratios are taken round by round.

Left out: more ranks than cores, where ranks take turns and seconds say nothing.
"""

import statistics
import time

import torch
import torch.distributed as dist

from utils.config import GPTConfig
from utils.measured import measured
from utils.model import build_gpt, next_token_loss
from utils.ranks import run_ranks
from utils.techniques.data_parallel import DataParallel


def step_seconds(
    rank: int, world_size: int, config: GPTConfig, batch_size: int, num_steps: int = 5
) -> float:
    """Median seconds of forward, backward and averaging with `batch_size` sequences a rank."""
    network = DataParallel(build_gpt(config), world_size)
    tokens_BT = torch.randint(config.vocab_size, (batch_size, config.context_length))
    times_s = []
    for _ in range(2 + num_steps):
        dist.barrier()
        start_s = time.perf_counter()
        next_token_loss(network, tokens_BT, tokens_BT).backward()
        times_s.append(time.perf_counter() - start_s)
        network.zero_grad()
    return statistics.median(times_s[2:])


def all_reduce_seconds(
    rank: int, world_size: int, sizes_bytes: list[int], num_runs: int = 7
) -> list[tuple[int, float]]:
    """(bytes, median seconds) of gloo's all-reduce for each size."""
    measured = []
    for num_bytes in sizes_bytes:
        tensor, times_s = torch.zeros(num_bytes // 4), []
        for _ in range(2 + num_runs):
            dist.barrier()
            start_s = time.perf_counter()
            dist.all_reduce(tensor)
            times_s.append(time.perf_counter() - start_s)
        measured.append((num_bytes, statistics.median(times_s[2:])))
    return measured


def scaling_rounds(
    config: GPTConfig, batch_one: int, batch_each: int, world_size: int = 2, num_rounds: int = 5
) -> list[tuple[float, float]]:
    """(seconds of a step on one rank, on `world_size` ranks), once a round.

    One rank works on `batch_one` sequences, each of several on `batch_each`. A step of several
    ranks takes as long as its slowest rank.
    """
    rounds = []
    for _ in range(num_rounds):
        (alone_s,) = run_ranks(step_seconds, 1, config, batch_one)
        together_s = max(run_ranks(step_seconds, world_size, config, batch_each))
        rounds.append((alone_s, together_s))
    return rounds


def efficiency(
    rounds: list[tuple[float, float]], world_size: int, is_weak: bool
) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile) of the efficiency over the rounds.

    Weak: the same batch on each rank, so time should not change. Strong: the same batch on all
    ranks together, so time should fall by their number.
    """
    ideal = 1 if is_weak else world_size
    shares = [alone_s / (ideal * together_s) for alone_s, together_s in rounds]
    low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
    return low, middle, high


def scaling_cells(
    rounds: list[tuple[float, float]], world_size: int, is_weak: bool
) -> tuple[str, str, str]:
    """Efficiency, its quartiles, and how many times the GPU-hours: three marked table cells."""
    low, middle, high = efficiency(rounds, world_size, is_weak)
    cost = measured(f"{1 / middle:.2f} times")
    return measured(f"{middle:.2f}"), measured(f"{low:.2f} to {high:.2f}"), cost
