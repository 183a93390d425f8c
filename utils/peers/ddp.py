"""Data parallelism behind the interface of `utils.peers`: torch's DDP, and ours.

How it works: every rank holds the whole model and the whole optimizer state; the gradients are
averaged during backward. It is the line that every sharded system stands beside in a table: bytes
16 per parameter whatever the number of ranks, and 2 (N - 1)/N of the gradients sent a step.

Gradients live in the buckets, which exist all the time, so `step` fills them with zeros rather than
dropping them. With `low_precision` the model is bf16 and the optimizer updates fp32 masters.

Left out: bf16 sums in fp32, gradients of different dtypes in one bucket.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.peers import TrainingJob, held_by, loss_of
from utils.peers.fsdp2 import group_device
from utils.techniques.data_parallel import DataParallel
from utils.techniques.master_weights import MasterWeights


class TorchDdpSystem:
    """A `System` of torch's DistributedDataParallel and AdamW."""

    def __init__(self, model: nn.Module, rank: int, world_size: int, job: TrainingJob) -> None:
        self.job, self.device = job, group_device(rank)
        self.model = model.to(self.device)
        self.masters = MasterWeights(self.model) if job.low_precision else None
        self.network = self._wrap(world_size)
        trained = self.masters.parameters() if self.masters else list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(trained, lr=job.learning_rate)

    def _wrap(self, world_size: int) -> nn.Module:
        return DistributedDataParallel(self.model, gradient_as_bucket_view=True)

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """Forward and backward of one micro-batch; gradients travel in the last one only."""
        tokens_BT, targets_BT = tokens_BT.to(self.device), targets_BT.to(self.device)
        with nullcontext() if is_last else self.network.no_sync():
            loss = loss_of(self.network, tokens_BT, targets_BT)
            (loss / self.job.num_micro_batches).backward()
        return loss.detach().cpu()

    def step(self) -> None:
        """Every rank does the same update with the same gradients."""
        if self.masters:
            self._give_masters_gradients()
        trained = self.optimizer.param_groups[0]["params"]
        if self.job.max_norm is not None:
            nn.utils.clip_grad_norm_(trained, self.job.max_norm)
        self.optimizer.step()
        if self.masters:
            self.optimizer.zero_grad()
            self.masters.copy_to_model()
        self.model.zero_grad(set_to_none=False)

    def _give_masters_gradients(self) -> None:
        """As `MasterWeights.collect_gradients`, but the buckets keep the gradients' memory."""
        for weight, master in zip(
            self.model.parameters(), self.masters.parameters(), strict=True
        ):
            master.grad = weight.grad.float()

    def whole_parameters(self) -> list[Tensor]:
        """The fp32 parameters, which are whole on every rank."""
        exact = self.masters.parameters() if self.masters else self.model.parameters()
        return [each.detach().cpu() for each in exact]

    def owned(self) -> dict[str, list[Any]]:
        """Everything, on every rank; masters count as optimizer state."""
        held = held_by(self.model, self.optimizer)
        held["optimizer state"] += self.masters.parameters() if self.masters else []
        return held


class OurDdpSystem(TorchDdpSystem):
    """The same with the course's own `DataParallel`."""

    def _wrap(self, world_size: int) -> nn.Module:
        return DataParallel(self.model, world_size)
