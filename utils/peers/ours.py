"""The from-scratch techniques behind the interface of `utils.peers`.

`zero_system(stage)` and `fsdp_system(...)` give what `utils.peers.harness` trains: a function that
makes the system.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from utils.peers import MakeSystem, TrainingJob, loss_of
from utils.techniques.fsdp import FullySharded
from utils.techniques.lane import InlineLane, Lane, ThreadLane
from utils.techniques.sharding import Sharding, group_of_two_levels
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


class OurFsdp:
    """`utils.techniques.fsdp`, with the options of `Sharding` and `FullySharded`.

    `num_sharing` below the world size is hybrid sharding; `overlaps=True` uses a thread as lane;
    `low_reduce=True` sends and adds up gradients in bf16 if the job computes in it.
    """

    def __init__(
        self, model: nn.Module, rank: int, world_size: int, job: TrainingJob,
        reshard_after_forward: bool = True, prefetch: int = 1, overlaps: bool = False,
        num_sharing: int | None = None, lane: Lane | None = None, no_sync: bool = False,
        keep_weights: bool = False, low_reduce: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.job, self.no_sync = model, job, no_sync
        self.keep_weights = keep_weights
        compute = torch.bfloat16 if job.low_precision else torch.float32
        sharding = Sharding(
            rank, world_size, compute_dtype=compute,
            reduce_dtype=compute if low_reduce else torch.float32,
        )  # fmt: skip
        if num_sharing is not None and num_sharing != world_size:
            group, replicas = group_of_two_levels(rank, world_size, num_sharing)
            sharding = replace(
                sharding, rank=rank % num_sharing, world_size=num_sharing, group=group,
                num_replicas=world_size // num_sharing, replica_group=replicas,
            )  # fmt: skip
        lane = lane or (ThreadLane() if overlaps else InlineLane())
        self.fsdp = FullySharded(
            model, model.blocks, sharding, lane, reshard_after_forward, prefetch
        )
        self.optimizer = torch.optim.AdamW(self.fsdp.parameters(), lr=job.learning_rate)

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """One micro-batch; with `no_sync` only the last one sends gradients."""
        waits = self.no_sync and not is_last
        with self.fsdp.no_sync(self.keep_weights) if waits else nullcontext():
            loss = loss_of(self.model, tokens_BT, targets_BT)
            (loss / self.job.num_micro_batches).backward()
        return loss

    def step(self) -> None:
        """Clip if the job says so, and update."""
        if self.job.max_norm is not None:
            self.fsdp.clip(self.job.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole_parameters(self) -> list[Tensor]:
        """All ranks' shards, put together."""
        return self.fsdp.whole_parameters()

    def owned(self) -> dict[str, list[Any]]:
        """The fp32 shards and what is whole of the weights, their gradients, and Adam's state."""
        shards, every = self.fsdp.parameters(), [*self.fsdp.shards, *self.fsdp.frozen]
        states = self.optimizer.state.values()
        return {
            "parameters": [each for shard in every for each in (shard.shard_S, shard.flat_P)],
            "gradients": [each.grad for each in shards if each.grad is not None],
            "optimizer state": [each for state in states for each in state.values()],
        }


def fsdp_system(**options: Any) -> MakeSystem:
    """Makes our FSDP with these options of `OurFsdp`."""
    return partial(OurFsdp, **options)


def zero_system(stage: int) -> MakeSystem:
    """Makes stage 1, 2 or 3. Raises ValueError for another stage."""
    if stage not in STAGES:
        raise ValueError(f"The stage must be 1, 2 or 3, not {stage}.")
    return partial(OurZero, stage=stage)
