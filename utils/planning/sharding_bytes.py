"""What each method of training holds on a rank, and what it adds at the moments of a step.

How it works: `held_bytes` is what is there after backward, `sharding_of` what comes and goes beside
the layers' own tensors (utils.planning.step_bytes). What is held follows from
`utils.sharded_bytes`; YaFSDP's buffers and DeepSpeed's masters come on top.

A reduce-scatter needs memory of its own, once the gradients have been copied into the message: our
ring this rank's sum and two parts, torch's on gloo a second message and this rank's sum, NCCL none
that torch would see (its own buffers are left out).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from utils.config import GPTConfig
from utils.costs import count_parameters, tensor_sizes
from utils.peers.fsdp2_traffic import fsdp2_shard_bytes, units_of
from utils.planning.step_bytes import Sharding
from utils.recipe import WHOLE_WEIGHTS, TrainingRecipe
from utils.sharded_bytes import (
    COUNTER_BYTES,
    FULL,
    PREFETCHES,
    SHARDS_STATE,
    ShardedBytes,
    ShardedSetting,
)

STAGES = {
    "single": "DDP", "ddp": "DDP", "zero1": "ZeRO-1", "zero2": "ZeRO-2", "zero3": "ZeRO-3",
    "fsdp": "FSDP", "yafsdp": "FSDP",
}  # fmt: skip


def setting_of(recipe: TrainingRecipe, config: GPTConfig) -> ShardedSetting:
    """The recipe's stage and precision as `utils.sharded_bytes` names them."""
    precision = "fp32"
    if recipe.precision == "bf16" and recipe.method not in WHOLE_WEIGHTS:
        is_fsdp = STAGES[recipe.method] == "FSDP"
        precision = "bf16, fp32 shards" if is_fsdp else "bf16"
    stage = STAGES[recipe.method]
    return ShardedSetting(config, stage, recipe.num_ranks, recipe.batch_size, precision)


def held_bytes(recipe: TrainingRecipe, config: GPTConfig) -> ShardedBytes:
    """What a rank keeps, gradients included: exact for torch and ours."""
    setting = setting_of(recipe, config)
    held = setting.held()
    if recipe.method == "yafsdp":
        return _buffered(setting)
    if recipe.method == "fsdp" and recipe.library == "torch":
        return _by_rows(config, recipe.num_ranks)
    if recipe.library == "deepspeed" and recipe.precision == "fp32":
        masters = FULL * setting.values(SHARDS_STATE)  # beside weights that are fp32 already
        return replace(held, optimizer_state=held.optimizer_state + masters)
    return held


def sharding_of(
    recipe: TrainingRecipe, setting: ShardedSetting, held: ShardedBytes, backend: str
) -> Sharding:
    """What exists beside held bytes and activations while layers compute."""
    again = recipe.micro_batches > 1
    units = _Units.of(setting, backend, recipe.library)
    if recipe.method in WHOLE_WEIGHTS:
        is_fresh = recipe.method == "single" and not again
        return Sharding(is_fresh, before=0 if is_fresh else held.gradients)
    if recipe.method == "zero1":
        bucket = units.bucket if recipe.library == "deepspeed" and again else 0
        return Sharding(not again, root=bucket, before=held.gradients * again)
    if recipe.method == "yafsdp":
        is_low = setting.kind.whole < FULL  # bf16 gradients are copied into the fp32 buffer
        return Sharding(is_low, before=held.gradients, done=0, scatters=is_low)
    if recipe.method == "fsdp":
        return _fsdp(units, held, again, recipe.library == "torch")
    if recipe.method == "zero3" and recipe.library == "deepspeed":
        # Each module by itself; its gradient goes into the bucket, shards of all are kept.
        return Sharding(False, root=units.bucket, block=units.bucket, before=held.gradients)
    return _zero(units, held, again, gathers=recipe.method == "zero3")


@dataclass(frozen=True)
class _Units:
    """Bytes of a block and of the root: padded weights, own gradients, messages."""

    num_ranks: int
    shares: float  # of a message, that a reduce-scatter takes beside it
    block: int
    root: int
    own_block: int
    own_root: int
    block_message: int
    root_message: int
    block_sum: int  # a block's gradients in fp32
    root_sum: int
    whole_sum: int  # of the whole model
    bucket: int  # DeepSpeed's, as large as the largest tensor

    @classmethod
    def of(cls, setting: ShardedSetting, backend: str, library: str) -> _Units:
        kind, ranks = setting.kind, setting.num_ranks
        shares = 3 / ranks if library == "ours" else 1 + 1 / ranks
        sizes = (setting.block_values, setting.root_values)
        block, root = (-(-each // ranks) * ranks for each in sizes)
        if library == "torch" and setting.level == PREFETCHES:
            block, root = (ranks * each for each in _rows(setting.config, ranks))
        return cls(
            ranks, shares * (backend == "gloo"), kind.whole * block, kind.whole * root,
            *(kind.whole * each for each in sizes),
            kind.message * block, kind.message * root, *(FULL * each for each in sizes),
            FULL * count_parameters(setting.config).total,
            kind.whole * max(tensor_sizes(setting.config)),
        )  # fmt: skip

    def reduction(self, message: int, freed: int) -> int:
        """The message, and what its reduce-scatter takes beyond the gradients freed by then."""
        return message + max(0, int(self.shares * message) - freed)


def _zero(units: _Units, held: ShardedBytes, again: bool, gathers: bool) -> Sharding:
    """Our stages 2 and 3; stage 3 frees a unit's weights after its reduction."""
    block, root = units.block * gathers, units.root * gathers
    return Sharding(
        is_fresh=True, root=root, frees_root=True, block=block, before=held.gradients * again,
        done=0 if again else units.block_message // units.num_ranks,
        reduce=block + units.reduction(units.block_message, units.own_block),
        reduce_root=root + units.reduction(units.root_message, units.own_root), scatters=True,
    )  # fmt: skip


def _fsdp(units: _Units, held: ShardedBytes, again: bool, is_torch: bool) -> Sharding:
    """A block ahead. torch keeps a block's message until the next one is made, and adds up the
    gradients of micro-batches whole, in fp32; ours reduces each micro-batch."""
    shard = units.block_message // units.num_ranks
    usual = Sharding(
        is_fresh=True, root=units.root, block=units.block, ahead=units.block,
        ahead_forward=units.block, message=units.block_message * is_torch,
        before=held.gradients * again, done=0 if again else shard,
        reduce=units.reduction(units.block_message, units.own_block),
        reduce_root=units.reduction(units.root_message, units.own_root), scatters=True,
    )  # fmt: skip
    if not (again and is_torch):
        return usual
    is_low = units.block < units.block_message  # gone once it has been added to the sum
    return replace(
        usual, is_fresh=is_low, before=units.whole_sum, done=shard - units.block_sum,
        reduce=units.reduction(units.block_message, units.block_sum) - units.own_block * is_low,
        reduce_root=units.reduction(units.root_message, units.root_sum) - units.own_root * is_low,
    )  # fmt: skip


def _buffered(setting: ShardedSetting) -> ShardedBytes:
    """YaFSDP: shards of blocks, root and norms, and a buffer or two for each kind of them."""
    config, ranks, kind = setting.config, setting.num_ranks, setting.kind
    norm = config.model_dim * (1 + config.bias)
    sizes = (
        setting.block_values - 2 * norm, setting.root_values, 2 * config.num_layers * norm,
    )  # fmt: skip
    block, root, norms = (-(-each // ranks) * ranks for each in sizes)
    shards = (config.num_layers * block + root + norms) // ranks
    buffers = min(2, config.num_layers) * block + root + norms
    low_shards = kind.whole * shards * (kind.whole < FULL)
    return ShardedBytes(
        parameters=FULL * shards + low_shards + kind.whole * buffers,
        gradients=FULL * shards + kind.message * buffers,
        optimizer_state=2 * FULL * shards + COUNTER_BYTES * (config.num_layers + 2),
    )


@lru_cache(maxsize=1024)
def _rows(config: GPTConfig, num_ranks: int) -> tuple[int, int]:
    """Values in FSDP2's shard of a block and of the root."""
    block, root = units_of(config)
    return block.shard_values(num_ranks), root.shard_values(num_ranks)


@lru_cache(maxsize=1024)
def _by_rows(config: GPTConfig, num_ranks: int) -> ShardedBytes:
    """FSDP2 fills up rows, of each parameter by itself; the first rank has the most."""
    held = fsdp2_shard_bytes(config, num_ranks)
    return ShardedBytes(held["parameters"], held["gradients"], held["optimizer state"])
