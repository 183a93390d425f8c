"""Bytes on one rank for every `TrainingRecipe`: what it holds, and its peak, with a pencil.

How it works: what is held follows from the method (utils.planning.sharding_bytes). The peak is the
highest of the moments of a step: forward and backward layer by layer, from the very operations of
utils/model.py (utils.planning.layer_words, step_bytes), then the optimizer. Nothing is run.

Against the meter on real ranks (tests/test_recipe_bytes.py; three small GPTs, 1, 2 and 4 ranks,
both attentions, with and without checkpointing, one and two micro-batches): what torch's and our
systems hold is exact, their peak is within 2 %, most of them to the byte. DeepSpeed keeps a second
fp32 copy of its part in fp32, and updates one flat tensor: both are counted here. Its peak is
within 2 %, but for one case: ZeRO-2 in fp32 with checkpointing and micro-batches, up to 9 % too
low. What it holds after backward differs: by its buckets, and in ZeRO-1 it has given away by then
the gradients that other ranks update.

Counted at the peak is the batch that a rank works on, not what a loader keeps. "buckets made anew"
is torch's DDP in its second step, once. With `backend="nccl"` the prediction is for GPUs: messages
need no copies there, and torch's AdamW works on all tensors at once, for which it takes 4 bytes a
value that a rank updates (its default, foreach; no GPU has checked this yet). Left out: the
allocator's rounding, NCCL's buffers, the context of CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from utils.config import GPTConfig
from utils.costs import tensor_sizes
from utils.planning.layer_bytes import Amount
from utils.planning.sharding_bytes import held_bytes, setting_of, sharding_of
from utils.planning.step_bytes import ModelBytes, step_moments
from utils.predict import TOKEN_BYTES, adam_scratch_bytes, mask_buffer_bytes
from utils.predict_sharded import predict_sharded
from utils.recipe import WHOLE_WEIGHTS, TrainingRecipe
from utils.sharded_bytes import (
    FULL,
    SHARDS_STATE,
    ShardedBytes,
    ShardedPrediction,
    ShardedSetting,
)

BACKENDS = ("gloo", "nccl")


@lru_cache(maxsize=4096)
def recipe_bytes(
    recipe: TrainingRecipe, config: GPTConfig, num_tokens: int = 0, backend: str = "gloo"
) -> ShardedPrediction:
    """What a rank holds after backward, and has at every moment of a step that can be its peak.

    `num_tokens` is the length of a sequence; 0 means the whole context. Raises ValueError for a
    backend that is neither "gloo", on processors, nor "nccl", on GPUs.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}.")
    config = replace(config, attention=recipe.attention)
    tokens = num_tokens or config.context_length
    setting, held = setting_of(recipe, config), held_bytes(recipe, config)
    again = recipe.checkpointing == "blocks"
    model = ModelBytes(config, recipe.batch_size, tokens, regime_of(recipe), again)
    always = 2 * recipe.batch_size * tokens * TOKEN_BYTES + mask_buffer_bytes(config)
    amounts = [
        *step_moments(model, sharding_of(recipe, setting, held, backend)),
        *_updates(recipe, setting, held, backend),
    ]
    moments = {
        name: replace(
            held, activations=amount.activations + always, gathered=amount.gathered,
            gradients=amount.gradients,
        )
        for name, amount in amounts
    }  # fmt: skip
    return ShardedPrediction(held, moments)


def regime_of(recipe: TrainingRecipe) -> str:
    """In which of the precisions of `utils.planning.layer_words` the layers compute."""
    if recipe.precision == "fp32":
        return "fp32"
    return "autocast" if recipe.method in WHOLE_WEIGHTS else "16-bit weights"


def _updates(
    recipe: TrainingRecipe, setting: ShardedSetting, held: ShardedBytes, backend: str
) -> Iterator[tuple[str, Amount]]:
    """After backward: gradients in the precision of the update, and the optimizer's scratch."""
    update = _optimizer(recipe, setting, held)
    if backend == "nccl":
        update = update._replace(gathered=FULL * setting.values(SHARDS_STATE))
    yield "optimizer", update
    if recipe.method == "zero1":
        yield from _scatters(setting, backend)
    if recipe.method == "ddp" and recipe.library == "torch":
        yield "buckets made anew", Amount(0, held.gradients, held.gradients)


def _optimizer(recipe: TrainingRecipe, setting: ShardedSetting, held: ShardedBytes) -> Amount:
    config = setting.config
    plain = predict_sharded(
        config, setting.stage, recipe.num_ranks, recipe.batch_size, setting.precision
    ).moments["optimizer"]
    if recipe.library == "deepspeed":
        part = FULL * setting.values(SHARDS_STATE)  # all in one flat tensor
        kept = recipe.method == "zero3"
        bucket = setting.kind.whole * max(tensor_sizes(config))
        return Amount(0, 2 * part + bucket * kept, part + held.gradients * kept)
    if recipe.method == "yafsdp":
        return Amount(0, plain.gathered, held.gradients)
    if recipe.method == "fsdp" and recipe.library == "torch":
        return Amount(0, adam_scratch_bytes(config) // recipe.num_ranks, plain.gradients)
    return Amount(0, plain.gathered, plain.gradients)


def _scatters(setting: ShardedSetting, backend: str) -> Iterator[tuple[str, Amount]]:
    """ZeRO-1 after backward: all gradients are there, then only shards and the root's."""
    ranks, size = setting.num_ranks, setting.kind.whole
    block, root = size * setting.block_values, size * setting.root_values
    blocks = setting.config.num_layers * block

    def flat(own: int) -> int:  # the message, and the ring's parts once `own` is freed
        return own + max(0, 3 * own // ranks - own) * (backend == "gloo")

    yield "scatter the first block", Amount(0, flat(block), blocks + root)
    yield "scatter the root", Amount(0, flat(root), root + blocks // ranks)
