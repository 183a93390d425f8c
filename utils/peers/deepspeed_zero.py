"""The real DeepSpeed behind the interface of this course: ZeRO stages 0 to 3 on processor ranks.

How it works: `deepspeed.initialize` finds the process group of `run_ranks` and uses it; nothing is
initialised twice and no port is needed. The optimizer is torch's AdamW, so that only the sharding
differs. After each micro-batch DeepSpeed's own `step` is called, which counts them and updates at
the last one, as its documentation has it.

Left out: offloading, its fused optimizers (both need a C++ compiler), fp16 on processors.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from utils.model import next_token_loss
from utils.peers import MakeSystem, TrainingJob
from utils.peers.deepspeed_import import (
    deepspeed_problem,
    import_deepspeed,
    silence_renamed_collectives,
)

__all__ = ["STAGES", "DeepSpeedSystem", "deepspeed_config", "deepspeed_problem", "deepspeed_stage"]
STAGES = (0, 1, 2, 3)


def deepspeed_config(job: TrainingJob, world_size: int, stage: int, bucket: int) -> dict[str, Any]:
    config = {
        "train_micro_batch_size_per_gpu": job.batch_size // (world_size * job.num_micro_batches),
        "gradient_accumulation_steps": job.num_micro_batches,
        "bf16": {"enabled": job.low_precision},
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": bucket,
            "stage3_param_persistence_threshold": 0,
            "stage3_max_live_parameters": 0,
            "stage3_max_reuse_distance": 0,
            "stage3_prefetch_bucket_size": 0,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    if job.max_norm is not None:
        config["gradient_clipping"] = job.max_norm
    return config


class DeepSpeedSystem:
    def __init__(self, model: nn.Module, rank: int, world_size: int, job: TrainingJob, stage: int):
        deepspeed = import_deepspeed()
        silence_renamed_collectives()
        self._parameters = list(model.parameters())
        bucket = max(p.numel() for p in self._parameters)
        self.engine, self.optimizer, *_ = deepspeed.initialize(
            model=model,
            model_parameters=self._parameters,
            optimizer=torch.optim.AdamW(self._parameters, lr=job.learning_rate),
            config=deepspeed_config(job, world_size, stage, bucket),
        )

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        loss = next_token_loss(self._logits, tokens_BT, targets_BT)
        self.engine.backward(loss)
        if not is_last:
            self.engine.step()
        return loss.detach()

    def step(self) -> None:
        self.engine.step()

    def _logits(self, tokens_BT: Tensor) -> Tensor:
        return self.engine(tokens_BT).float()

    def whole_parameters(self) -> list[Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        whole = [safe_get_full_fp32_param(p) for p in self._parameters]
        return [p.detach().float() if w is None else w for p, w in zip(self._parameters, whole)]


def deepspeed_stage(stage: int) -> MakeSystem:
    return partial(DeepSpeedSystem, stage=stage)
