"""The from-scratch techniques behind the interface of `utils.peers`.

`zero_system(stage)` gives what `utils.peers.harness` trains: a function that makes the system.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from utils.peers import MakeSystem, TrainingJob, loss_of
from utils.techniques.zero import ZeroOne, ZeroThree, ZeroTwo

STAGES = {1: ZeroOne, 2: ZeroTwo, 3: ZeroThree}


class OurZero:
    """`utils.techniques.zero` in one of its three stages."""

    def __init__(
        self, model: nn.Module, rank: int, world_size: int, job: TrainingJob, stage: int
    ) -> None:
        self.model, self.job = model, job
        dtype = torch.bfloat16 if job.low_precision else torch.float32
        make_optimizer = partial(torch.optim.AdamW, lr=job.learning_rate)
        self.zero = STAGES[stage](
            model, model.blocks, make_optimizer, rank, world_size, dtype=dtype
        )

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """One micro-batch."""
        loss = loss_of(self.model, tokens_BT, targets_BT)
        (loss / self.job.num_micro_batches).backward()
        return loss

    def step(self) -> None:
        """Clip if the job says so, and update."""
        self.zero.step(self.job.max_norm)

    @torch.no_grad()
    def whole_parameters(self) -> list[Tensor]:
        """The masters of all ranks, put together."""
        return self.zero.whole_parameters()

    def owned(self) -> dict[str, list[Any]]:
        """Weights, gradients, and the optimizer's share."""
        parameters = list(self.model.parameters())
        states = self.zero.optimizer.state.values()
        return {
            "parameters": parameters + [unit.shard_S for unit in self.zero.units],
            "gradients": [p.grad for p in parameters if p.grad is not None]
            + [unit.gradient_S for unit in self.zero.units if unit.gradient_S is not None],
            "optimizer state": [unit.master_S for unit in self.zero.units]
            + [each for state in states for each in state.values()],
        }


def zero_system(stage: int) -> MakeSystem:
    """Makes stage 1, 2 or 3. Raises ValueError for another stage."""
    if stage not in STAGES:
        raise ValueError(f"The stage must be 1, 2 or 3, not {stage}.")
    return partial(OurZero, stage=stage)
