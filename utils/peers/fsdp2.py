"""torch's own FSDP2 (`fully_shard`) behind the interface of `utils.peers`.

How it works: each block is one unit that is gathered and freed as a whole, and everything else
(embeddings, last norm, output layer) is the root's unit. FSDP2 cuts every parameter by itself along
its first dimension, in rows, while ours cuts one flat tensor a unit. Every choice that FSDP2 offers
here is one field of `Fsdp2Options`; `fsdp2_traffic` (utils/peers/fsdp2_traffic.py) says what it
costs in bytes sent.

`RingReduceScatter` puts our reduce-scatter into FSDP2: gloo's own sends twice as much as is needed
(utils/ranks/gloo_bytes.py). On GPUs NCCL's is as good, so there it gains nothing.

Left out: offloading to the CPU, sharding along another dimension, torch.compile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from utils.peers import TrainingJob, clip_and_update, held_by, loss_of
from utils.techniques.checkpointing import Checkpoint
from utils.techniques.ring import ring_reduce_scatter


@dataclass(frozen=True)
class Fsdp2Options:
    """What FSDP2 is asked to do; `check` refuses what does not fit a world size."""

    reshard_after_forward: bool | int = True  # False keeps the weights; a number: shards of so many
    num_shards: int | None = None  # ranks that share one copy of the model; None means all
    ring: bool = False  # our reduce-scatter instead of the backend's
    prefetch: bool = False  # asynchronous all-gathers, started one block ahead
    low_precision_sums: bool = False  # with low_precision: sum gradients in bf16, not in fp32
    sync_every_micro_batch: bool = False  # reduce gradients each time, not only in the last one
    checkpoint: Checkpoint | None = None  # runs each block again in backward, ours or torch's

    def check(self, world_size: int) -> None:
        """Raise ValueError for a number of shards that these ranks cannot make."""
        shards = self.num_shards or world_size
        if shards < 1 or world_size % shards:
            raise ValueError(
                f"{world_size} ranks do not make copies of {shards} shards each: take a number "
                f"that divides {world_size}."
            )
        again = self.reshard_after_forward
        if not isinstance(again, bool) and not (1 < again < shards and shards % again == 0):
            raise ValueError(
                f"reshard_after_forward={again} must be True, False or a number between 1 and "
                f"{shards} that divides {shards}."
            )


class Fsdp2System:
    """A `System` that trains with `fully_shard` and AdamW; options are `Fsdp2Options`' fields."""

    def __init__(
        self, model: nn.Module, rank: int, world_size: int, job: TrainingJob, **options: Any
    ) -> None:
        self.job, self.options = job, Fsdp2Options(**options)
        self.options.check(world_size)
        self.device = group_device(rank)
        self.model = shard_model(
            model.to(self.device), make_mesh(self.device.type, world_size, self.options),
            job.low_precision, self.options,
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=job.learning_rate)

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """Forward and backward of one micro-batch; gradients travel in the last one only."""
        syncs = is_last or self.options.sync_every_micro_batch
        self.model.set_requires_gradient_sync(syncs)
        tokens_BT, targets_BT = tokens_BT.to(self.device), targets_BT.to(self.device)
        loss = loss_of(self.model, tokens_BT, targets_BT)
        (loss / self.job.num_micro_batches).backward()
        return loss.detach().cpu()

    def step(self) -> None:
        """Clip by the norm over all ranks' shards, update the shards, drop the gradients."""
        clip_and_update(self.model, self.optimizer, self.job.max_norm)

    def whole_parameters(self) -> list[Tensor]:
        """All parameters, gathered one after the other."""
        return [each.full_tensor().float().cpu() for each in self.model.parameters()]

    def owned(self) -> dict[str, list[Any]]:
        """Shards; the meter counts a shard's storage, so the zeros that pad it count too."""
        return held_by(self.model, self.optimizer)


def shard_model(
    model: nn.Module, mesh: DeviceMesh, low_precision: bool, options: Fsdp2Options
) -> nn.Module:
    """Apply `fully_shard` to the blocks and then to the rest; the model is changed in place."""
    if options.checkpoint is not None:
        for number, block in enumerate(model.blocks):
            model.blocks[number] = checkpoint_wrapper(block, checkpoint_fn=options.checkpoint)
    again, policy = options.reshard_after_forward, _policy(low_precision, options)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=again)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    if options.ring:
        for unit in (model, *model.blocks):
            unit.set_custom_reduce_scatter(RingReduceScatter())
    if options.prefetch:
        _prefetch(model)
    return model


class RingReduceScatter:
    """Our ring in the form that `set_custom_reduce_scatter` wants: two methods, no base class.

    torch keeps its abstract base class in a private module, at another place in each version, and
    never asks for it.
    """

    def allocate(
        self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Memory for the flat gradients and for this rank's part of their sum."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup,
        op: Any, async_op: bool = False,
    ) -> None:  # fmt: skip
        """output_tensor becomes this rank's part of the sum, or of the mean, of input_tensor."""
        if op not in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
            raise NotImplementedError(f"The ring adds or averages; it does not know {op}.")
        ring_reduce_scatter(output_tensor, input_tensor, group.rank(), group.size(), group)
        if op == dist.ReduceOp.AVG:
            output_tensor.div_(group.size())


def make_mesh(device_type: str, world_size: int, options: Fsdp2Options) -> DeviceMesh:
    """All ranks in a row, or copies x shards: only ranks in the same row share a copy."""
    num_shards = options.num_shards or world_size
    if num_shards == world_size:
        return init_device_mesh(device_type, (world_size,), mesh_dim_names=("shards",))
    shape = (world_size // num_shards, num_shards)
    return init_device_mesh(device_type, shape, mesh_dim_names=("copies", "shards"))


def group_device(rank: int, group: dist.ProcessGroup | None = None) -> torch.device:
    """Where the ranks of a group keep their tensors: a GPU each if they talk by NCCL.

    On several machines LOCAL_RANK, which every launcher sets, says which one.
    """
    if "nccl" in dist.get_backend_config(group):
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def _policy(low_precision: bool, options: Fsdp2Options) -> MixedPrecisionPolicy:
    """bf16 to gather and to compute with; the shards, which the optimizer updates, stay fp32."""
    if not low_precision:
        return MixedPrecisionPolicy()
    sums = torch.bfloat16 if options.low_precision_sums else torch.float32
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=sums)


def _prefetch(model: nn.Module) -> None:
    """Start each block's all-gather while the block before it computes, in both directions.

    FSDP2 hides transfers behind streams of the GPU, which a processor has not: there only an
    asynchronous collective can hide. (In backward FSDP2 gathers one unit ahead by itself.)
    """
    units = [model, *model.blocks]
    model._set_unshard_async_op(True)
    for unit, following in pairwise(units):
        unit.set_modules_to_forward_prefetch([following])
