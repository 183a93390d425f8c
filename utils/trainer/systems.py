"""From a recipe to a `System` of `utils.peers`: the same model under whoever trains it.

How it works: `system_of(recipe)` gives what `utils.peers.harness` and the trainer build on every
rank. Techniques wrap the model in this order: the attention comes with the config, checkpointing
wraps each block, autocast wraps the forward pass, and last the ranks' method wraps the whole.

    recipe.method     library torch     ours               deepspeed
    single            WholeModel        WholeModel
    ddp               WholeModel        WholeModel
    zero1, 2, 3                         OurZero            DeepSpeedSystem
    fsdp, yafsdp      Fsdp2System       OurFsdp, OurYaFsdp

Left out: compiling, offloading, fp8.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from utils.config import GPTConfig
from utils.peers import MakeSystem, System, TrainingJob, held_by, loss_of
from utils.peers.deepspeed_zero import DeepSpeedSystem
from utils.peers.fsdp2 import Fsdp2System, group_device
from utils.peers.our_yafsdp import OurYaFsdp
from utils.peers.ours import OurFsdp, OurZero
from utils.recipe import TrainingRecipe
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CPU_RULES, CUDA_RULES
from utils.techniques.checkpointing import checkpoint_by_hooks
from utils.techniques.data_parallel import DataParallel
from utils.techniques.loss_scaling import DynamicScaler

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def config_of(recipe: TrainingRecipe, config: GPTConfig) -> GPTConfig:
    """The model's config with the recipe's attention."""
    return replace(config, attention=recipe.attention)


def job_of(recipe: TrainingRecipe, config: GPTConfig, **job: Any) -> TrainingJob:
    """The job of this recipe; `job` are further fields of `TrainingJob`."""
    return TrainingJob(
        config_of(recipe, config),
        recipe.sequences_per_step,
        num_micro_batches=recipe.micro_batches,
        low_precision=recipe.precision == "bf16",
        **job,
    )


def training_device(rank: int) -> torch.device:
    """A GPU of its own for each rank that talks by NCCL; alone, the GPU if there is one."""
    if dist.is_initialized():
        return group_device(rank)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def system_of(recipe: TrainingRecipe) -> MakeSystem:
    """Makes the system that trains by the recipe; the model that it gets is changed in place."""
    return partial(_make_system, recipe)


def _make_system(
    recipe: TrainingRecipe, model: nn.Module, rank: int, world_size: int, job: TrainingJob
) -> System:
    if recipe.num_ranks != world_size:
        raise ValueError(
            f"The recipe is for num_ranks={recipe.num_ranks}, but {world_size} are running."
        )
    if recipe.checkpointing == "blocks":
        checkpoint_blocks(model, recipe.library)
    if recipe.method in ("single", "ddp"):
        return WholeModel(model, rank, world_size, job, recipe)
    if recipe.method.startswith("zero"):
        make = OurZero if recipe.library == "ours" else DeepSpeedSystem
        return make(model, rank, world_size, job, stage=int(recipe.method[-1]))
    make = {"torch": Fsdp2System, "ours": OurFsdp}[recipe.library]
    make = OurYaFsdp if recipe.method == "yafsdp" else make
    return make(model, rank, world_size, job)


def checkpoint_blocks(model: nn.Module, library: str = "torch") -> None:
    """Each block of the model runs again in backward, by torch's checkpoint or by ours.

    Only `forward` is replaced: modules and parameters keep their names, and with them a saved run
    may go on with or without checkpointing.
    """
    ours = library == "ours"
    function = checkpoint_by_hooks if ours else partial(torch_checkpoint, use_reentrant=False)
    for block in model.blocks:
        block.forward = partial(function, block.forward)


class WholeModel:
    """A `System` that holds everything on every rank: one process, or DDP, torch's or ours."""

    def __init__(
        self, model: nn.Module, rank: int, world_size: int, job: TrainingJob,
        recipe: TrainingRecipe,
    ) -> None:  # fmt: skip
        self.job, self.device = job, training_device(rank)
        self.is_ours, self.is_alone = recipe.library == "ours", recipe.method == "single"
        self.model = model.to(self.device)
        if recipe.precision != "fp32":
            self._autocast(DTYPES[recipe.precision])
        self.network = self._replicate(world_size)
        self.scaler = self._make_scaler() if recipe.precision == "fp16" else None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=job.learning_rate)

    def _autocast(self, dtype: torch.dtype) -> None:
        """The forward pass alone, as torch advises; each call makes its own cache of casts."""
        forward, kind = self.model.forward, self.device.type

        @wraps(forward)
        def lowered(tokens_BT: Tensor) -> Tensor:
            rules = CUDA_RULES if kind == "cuda" else CPU_RULES
            ours = ManualAutocast(rules, dtype) if self.is_ours else None
            with ours or torch.autocast(kind, dtype):
                return forward(tokens_BT)

        self.model.forward = lowered

    def _replicate(self, world_size: int) -> nn.Module:
        if self.is_alone:
            return self.model
        if self.is_ours:
            return DataParallel(self.model, world_size)
        return DistributedDataParallel(self.model, gradient_as_bucket_view=True)

    def _make_scaler(self) -> Any:
        return DynamicScaler() if self.is_ours else torch.amp.GradScaler(self.device.type)

    def _waits(self, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext() if is_last or self.is_alone else self.network.no_sync()

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """Forward and backward of one micro-batch; gradients travel in the last one only."""
        tokens_BT, targets_BT = tokens_BT.to(self.device), targets_BT.to(self.device)
        with self._waits(is_last):
            loss = loss_of(self.network, tokens_BT, targets_BT)
            part = loss / self.job.num_micro_batches
            (self.scaler.scale(part) if self.scaler else part).backward()
        return loss.detach().cpu()

    def step(self) -> None:
        """Unscale, clip, update; the buckets of DDP keep their memory."""
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if self.job.max_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.job.max_norm)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.model.zero_grad(set_to_none=self.is_alone)

    def whole_parameters(self) -> list[Tensor]:
        """The fp32 parameters, which are whole on every rank."""
        return [each.detach().cpu() for each in self.model.parameters()]

    def owned(self) -> dict[str, list[Any]]:
        """Everything, on every rank."""
        return held_by(self.model, self.optimizer)
