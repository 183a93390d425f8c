"""The real DeepSpeed behind the interface of `utils.peers`: ZeRO stages 0 to 3 on processor ranks.

How it works: `deepspeed.initialize` finds the process group of `run_ranks` and uses it; nothing is
initialised twice and no port is needed. The optimizer is torch's AdamW, so that only the sharding
differs. DeepSpeed's own `step` is called after each micro-batch: it counts them, and updates at
the last one. `deepspeed_stage(3)` gives what `utils.peers.harness` trains.

Left out: offloading and DeepSpeed's own optimizers (they need a C++ compiler); GPUs; fp16.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from utils.peers import MakeSystem, TrainingJob, loss_of
from utils.peers.deepspeed_import import import_deepspeed, silence_renamed_collectives

STAGES = (0, 1, 2, 3)
# Stage 3 by default keeps weights below 100,000 values whole on every rank, gathers ahead, and
# frees nothing that it will need again within a billion weights: a small model would never be
# sharded. With zeros each layer is gathered when it starts and freed when it ends, forward and
# backward, as it is with a large model.
NOTHING_STAYS = {
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": 0,
}


def deepspeed_stage(stage: int, **zero_options: Any) -> MakeSystem:
    """Makes one stage; `zero_options` are entries of DeepSpeed's "zero_optimization" to replace.

    Raises ValueError for a stage that DeepSpeed does not have.
    """
    if stage not in STAGES:
        raise ValueError(f"The stage must be 0, 1, 2 or 3, not {stage!r}.")
    return partial(DeepSpeedSystem, stage=stage, **zero_options)


def deepspeed_config(
    job: TrainingJob, world_size: int, stage: int, bucket_size: int
) -> dict[str, Any]:
    """DeepSpeed's settings for a job; gradients travel in buckets of `bucket_size` values.

    Its default of 500 million values is 2 GB in fp32, which stage 3 allocates whatever the model.
    """
    micro_batch_size = job.batch_size // (world_size * job.num_micro_batches)
    zero = {"stage": stage, "reduce_bucket_size": bucket_size}
    return {
        "train_micro_batch_size_per_gpu": max(1, micro_batch_size),
        "gradient_accumulation_steps": job.num_micro_batches,
        "gradient_clipping": job.max_norm or 0.0,
        "bf16": {"enabled": job.low_precision},
        "zero_optimization": zero | (NOTHING_STAYS if stage == 3 else {}),
        "steps_per_print": None,
    }


class DeepSpeedSystem:
    """A `System` of `utils.peers` around a DeepSpeed engine."""

    def __init__(
        self, model: nn.Module, rank: int, world_size: int, job: TrainingJob, stage: int,
        **zero_options: Any,
    ) -> None:  # fmt: skip
        deepspeed = import_deepspeed()
        silence_renamed_collectives()
        self.parameters, self.stage = list(model.parameters()), stage
        self._master_of = deepspeed.utils.safe_get_full_fp32_param
        largest = max(each.numel() for each in self.parameters)
        config = deepspeed_config(job, world_size, stage, bucket_size=largest)
        config["zero_optimization"].update(zero_options)
        self.torch_optimizer = torch.optim.AdamW(self.parameters, lr=job.learning_rate)
        self.engine, self.optimizer, *_ = deepspeed.initialize(
            model=model, optimizer=self.torch_optimizer, config=config
        )

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """One micro-batch; DeepSpeed divides by their number and averages over the ranks."""
        loss = loss_of(self.engine, tokens_BT, targets_BT)
        self.engine.backward(loss)
        if not is_last:
            self.engine.step()  # it only counts
        return loss.detach()

    def step(self) -> None:
        """Clip if the job says so, and update."""
        self.engine.step()

    @torch.no_grad()
    def whole_parameters(self) -> list[Tensor]:
        """The fp32 masters, gathered from the ranks; stage 0 has all that it updates."""
        if self.stage == 0:
            return [each.detach() for each in self.torch_optimizer.param_groups[0]["params"]]
        return [self._master_of(each) for each in self.parameters]

    def owned(self) -> dict[str, list[Any]]:
        """Weights, gradients, and the optimizer's share: masters and moments.

        Stages 1 to 3 keep masters in fp32 too, as a second copy of this rank's part.
        """
        moments = [list(state.values()) for state in self.torch_optimizer.state.values()]
        return {
            "parameters": [getattr(each, "ds_tensor", each) for each in self.parameters],
            "gradients": self._gradients(),
            "optimizer state": self._masters() + tree_leaves(moments),
        }

    def _masters(self) -> list[Tensor]:
        """What torch's AdamW updates, unless that is the model's weights themselves."""
        updated = [each for group in self.torch_optimizer.param_groups for each in group["params"]]
        updated += getattr(self.optimizer, "fp32_partitioned_groups_flat", [])  # stage 3
        own = set(map(id, self.parameters))
        return [each for each in updated if id(each) not in own]

    def _gradients(self) -> list[Tensor]:
        """Stage 0 leaves them at the weights; the others keep parts, and stage 3 its bucket."""
        parts = list(getattr(self.optimizer, "averaged_gradients", {}).values())
        buckets = [each.buffer for each in getattr(self.optimizer, "ipg_buckets", {}).values()]
        leaves = tree_leaves([[each.grad for each in self.parameters], parts, buckets])
        return [each for each in leaves if isinstance(each, Tensor)]
