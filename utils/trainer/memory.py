"""What a run holds and sends, measured before it trains, so that no timed step is slowed.

How it works: a second system of the same recipe, from the same seed, takes three steps of the same
shape under the memory meter (`measure_system`), the second one under the traffic ledger too, and is
gone before training starts. What the meter sees does not depend on values, so these are the bytes
of every step of the run. On a GPU the allocator's own peak of the real steps stands beside.

Left out: checkpoints and validation, which hold less than a step.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor, nn

from utils.config import GPTConfig
from utils.peers import System, TrainingJob
from utils.peers.harness import measure_system
from utils.ranks import TrafficLedger
from utils.recipe import TrainingRecipe
from utils.trainer.group import Ranks
from utils.trainer.systems import job_of, system_of

STEPS = 3  # the last two are equal: the lower peak counts, whatever a thread of gloo still holds


def measure_ranks(
    recipe: TrainingRecipe, config: GPTConfig, ranks: Ranks, **job: Any
) -> dict[str, Any]:
    """This rank's entry for the log's end; all ranks call it. `job` as for `job_of`."""
    made: list[_Watched] = []

    def make(model: nn.Module, rank: int, world_size: int, job: TrainingJob) -> System:
        made.append(_Watched(system_of(recipe), model, ranks, job))
        return made[-1]

    measured = measure_system(
        ranks.rank, ranks.world_size, make, job_of(recipe, config, num_steps=STEPS, **job)
    )
    sent_bytes = made.pop().ledger.bytes_sent
    gc.collect()
    return {
        "rank": ranks.rank,
        "peak_bytes": measured.peak_bytes,
        "held": measured.held,
        "sent_bytes_per_step": sent_bytes,
    }


class _Watched:
    """A system on the run's device, whose second step goes through a ledger."""

    def __init__(self, make: Any, model: nn.Module, ranks: Ranks, job: TrainingJob) -> None:
        self.system = make(model.to(ranks.device), ranks.rank, ranks.world_size, job)
        self.device, self.num_steps, self.ledger = ranks.device, 0, TrafficLedger()
        self.is_open = False
        self.owned = self.system.owned

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        if self.num_steps == 1 and not self.is_open:
            self.is_open = True
            self.ledger.__enter__()
        batch = tokens_BT.to(self.device), targets_BT.to(self.device)
        return self.system.backward(*batch, is_last).detach().cpu()

    def step(self) -> None:
        self.system.step()
        self.num_steps += 1
        if self.is_open:
            self.is_open = False
            self.ledger.__exit__()


def allocator_peak_bytes(device: torch.device) -> int | None:
    """The most that torch's allocator has given out since the last call; None on a CPU."""
    if device.type != "cuda":
        return None
    peak_bytes = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak_bytes
