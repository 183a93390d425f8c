"""Our YaFSDP behind the interface of `utils.peers`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from utils.peers import MakeSystem, TrainingJob, loss_of
from utils.techniques.buffered_shard import BufferedShard, exact_sum_scatter
from utils.techniques.flat_shard import Sharding
from utils.techniques.lane import InlineLane, Lane, ThreadLane
from utils.techniques.yafsdp import YaFSDP


class OurYaFsdp:
    """`utils.techniques.yafsdp`; `overlaps=True` uses a thread as lane.

    `low_reduce` sends gradients in bf16 too, and `sums_in_fp32` adds them up without rounding.
    """

    def __init__(
        self, model: nn.Module, rank: int, world_size: int, job: TrainingJob,
        reshard_after_forward: bool = True, num_buffers: int = 2, overlaps: bool = False,
        lane: Lane | None = None, low_reduce: bool = False, sums_in_fp32: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.job = model, job
        compute = torch.bfloat16 if job.low_precision else torch.float32
        reduce = torch.bfloat16 if low_reduce or sums_in_fp32 else torch.float32
        sharding = Sharding(
            rank, world_size, compute_dtype=compute, reduce_dtype=reduce,
            scatter=exact_sum_scatter if sums_in_fp32 else None,
        )  # fmt: skip
        lane = lane or (ThreadLane() if overlaps else InlineLane())
        self.sharded = YaFSDP(
            model, model.blocks, sharding, lane, reshard_after_forward, num_buffers,
            job.num_micro_batches,
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.sharded.parameters(), lr=job.learning_rate)

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """One micro-batch; the division by their number comes at the end."""
        loss = loss_of(self.model, tokens_BT, targets_BT)
        loss.backward()
        return loss

    def step(self) -> None:
        """Clip if the job says so, and update."""
        if self.job.max_norm is not None:
            self.sharded.clip(self.job.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole_parameters(self) -> list[Tensor]:
        """All ranks' shards, put together."""
        return self.sharded.whole_parameters()

    def owned(self) -> dict[str, list[Any]]:
        """Shards and weight buffers, gradients and their buffers, Adam's state."""
        shards = [each for each in self.sharded.shards if isinstance(each, BufferedShard)]
        states = self.optimizer.state.values()
        return {
            "parameters": [part for each in shards for part in (each.shard_S, each.low_S)]
            + [each.weights.flat for each in shards],
            "gradients": [each.sum_S for each in shards]
            + [each.gradients.flat for each in shards],
            "optimizer state": [each for state in states for each in state.values()],
        }


def yafsdp_system(**options: Any) -> MakeSystem:
    """Makes our YaFSDP with these options of `OurYaFsdp`."""
    return partial(OurYaFsdp, **options)
