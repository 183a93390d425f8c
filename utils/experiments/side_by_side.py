"""Step times of several training systems, taken so that a slow moment hits all of them.

How it works: every rank builds all systems, each with a model of its own, and trains them in turn,
one step each, round after round. A round's time of a system is that of its slowest rank. The ratios
are taken round by round (`utils.timing.Comparison`), with the verdict "too noisy to tell" where the
quartiles straddle 1.

Left out: systems that cannot live in one process with others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch.distributed as dist

from utils.model import build_gpt
from utils.peers import MakeSystem, TrainingJob
from utils.peers.harness import batches, parts_of
from utils.ranks import run_ranks
from utils.timing import Comparison, Timing


def round_seconds(
    rank: int, world_size: int, systems: Mapping[str, MakeSystem], job: TrainingJob,
    num_warm: int = 2,
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds of each of the job's steps but the first `num_warm`; a worker for `run_ranks`."""
    built = {
        name: make(build_gpt(job.config, seed=job.seed), rank, world_size, job)
        for name, make in systems.items()
    }
    times_s: dict[str, list[float]] = {name: [] for name in systems}
    for number, batch in enumerate(batches(job)):
        parts = parts_of(batch, rank, world_size, job.num_micro_batches)
        for name, system in built.items():
            dist.barrier()
            start_s = time.perf_counter()
            for place, (tokens_BT, targets_BT) in enumerate(parts):
                system.backward(tokens_BT, targets_BT, place == len(parts) - 1)
            system.step()
            if number >= num_warm:
                times_s[name].append(time.perf_counter() - start_s)
    return times_s


def side_by_side(
    systems: Mapping[str, MakeSystem], world_size: int, job: TrainingJob, num_rounds: int = 9
) -> Comparison:
    """The systems' step times on the same ranks, in turn, after two rounds that do not count.

    Raises ValueError for no system, or fewer than 3 rounds: there are no quartiles then.
    """
    if not systems or num_rounds < 3:
        raise ValueError(
            f"Take at least one system and 3 rounds, not {len(systems)} and {num_rounds}."
        )
    longer = replace(job, num_steps=2 + num_rounds)
    by_rank = run_ranks(round_seconds, world_size, dict(systems), longer, quiet=True)
    slowest = {
        name: tuple(map(max, zip(*(times_s[name] for times_s in by_rank), strict=True)))
        for name in systems
    }
    return Comparison({name: Timing(runs_s) for name, runs_s in slowest.items()})
