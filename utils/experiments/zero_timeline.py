"""Weights and gradients that a rank holds during one step, event by event, for each stage of ZeRO.

How it works: a worker for `run_ranks` trains two steps under the memory meter and returns the
second. Its place on the horizontal axis counts phases (0 to 1 forward, 1 to 2 backward, 2 to 3
update), so that stages with more or fewer events lie above each other.

Left out: activations, optimizer state (constant), and copies that live for one message.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.config import GPTConfig
from utils.memory import MemoryMeter
from utils.model import build_gpt
from utils.peers import TrainingJob
from utils.peers.harness import batches, parts_of
from utils.peers.ours import zero_system
from utils.ranks import run_ranks

PICTURED = TrainingJob(GPTConfig(6, 4, 96, 16, 64), batch_size=4)  # weights outweigh the rest
PHASES = ("forward", "backward", "update")


@dataclass(frozen=True)
class StepBytes:
    """Bytes after each event of one step; `places` run from 0 to 3, a whole number a phase."""

    places: np.ndarray
    weights: np.ndarray
    gradients: np.ndarray
    num_parameters: int


def steps_of_all_stages(num_ranks: int = 2, job: TrainingJob = PICTURED) -> dict[str, StepBytes]:
    """Rank 0's step in stages 1, 2 and 3, by name."""
    return {f"stage {n}": run_ranks(step_bytes, num_ranks, n, job)[0] for n in (1, 2, 3)}


def step_bytes(
    rank: int, world_size: int, stage: int, job: TrainingJob
) -> StepBytes:
    """One micro-batch of our ZeRO on this rank, forward to update; a worker for `run_ranks`."""
    model = build_gpt(job.config, seed=job.seed)
    num_parameters = sum(each.numel() for each in model.parameters())
    steps = [parts_of(batch, rank, world_size, 1)[0] for batch in batches(job)][:2]
    model.register_forward_hook(lambda *_: meter.mark("backward"))
    with MemoryMeter(model) as meter:
        system = zero_system(stage)(model, rank, world_size, job)
        zero = system.zero

        def before_update(*_: object) -> None:
            """Stage 1 has its shards of the gradients only now."""
            meter.label("gradients", *(unit.master_S.grad for unit in zero.units))

        zero.optimizer.register_step_pre_hook(before_update)
        for number, (tokens_BT, targets_BT) in enumerate(steps):
            meter.label("parameters", *system.owned()["parameters"])
            meter.mark(f"step {number}")
            system.backward(tokens_BT, targets_BT, True)
            meter.label("gradients", *system.owned()["gradients"])
            meter.mark("update")
            system.step()
    report = meter.report()
    starts = [dict(report.marks)[name] for name in ("step 1", "backward", "update")]
    edges = [*starts, len(report.operations)]
    places = np.interp(np.arange(starts[0], edges[-1]), edges, range(len(edges)))
    weights, gradients = (report.timeline[name] for name in ("parameters", "gradients"))
    return StepBytes(places, weights[starts[0] :], gradients[starts[0] :], num_parameters)
