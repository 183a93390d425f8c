"""Bytes per rank of sharded training, with a pencil: ZeRO's stages and FSDP on any number of GPUs.

How it works: what is held follows from who keeps what. Bytes per parameter, for N ranks:

                          fp32          bf16, fp32 masters
    DDP                   16            16
    ZeRO-1                8 + 8/N       4 + 12/N
    ZeRO-2                4 + 12/N      2 + 14/N
    ZeRO-3, FSDP          16/N          16/N

The peak is the highest of several moments of a step. Beside what is held there are then activations
and whole weights, whole gradients and messages of one unit or two (`_Moments`). "bf16, fp32 shards"
is FSDP2's mixed precision: shards stay fp32, what is gathered is bf16. The tests hold what is held
against the meter, exactly, and the peak within a few percent: on 2 and 4 real ranks, and on 64
that torch's tracker follows.

Source of the stages: Rajbhandari et al., "ZeRO" (arXiv 1910.02054), figure 1. Left out: dropout,
explicit attention's T x T tables, the allocator's rounding on a GPU, buffers of NCCL, and
micro-batches: from the second one on, the gradients that are held count at every moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from utils.config import GPTConfig
from utils.predict import TOKEN_BYTES, adam_scratch_bytes, block_activation_bytes
from utils.sharded_bytes import (
    FULL,
    PRECISIONS,
    PREFETCHES,
    SHARDS_GRADIENTS,
    SHARDS_STATE,
    SHARDS_WEIGHTS,
    STAGES,
    ShardedBytes,
    ShardedPrediction,
    ShardedSetting,
)

__all__ = [
    "PRECISIONS",
    "STAGES",
    "ShardedBytes",
    "ShardedPrediction",
    "predict_sharded",
    "smallest_number_of_gpus",
]


def predict_sharded(
    config: GPTConfig,
    stage: str,
    num_ranks: int,
    batch_size: int,
    precision: str = "fp32",
    checkpointing: bool = False,
    num_tokens: int = 0,
) -> ShardedPrediction:
    """One step on `batch_size` sequences per rank that starts without gradients.

    `checkpointing` runs each block again in backward. Raises ValueError for an unknown stage or
    precision, no rank, no sequence, or fp32 shards in a stage that does not shard the weights.
    """
    setting = ShardedSetting(
        config, stage, num_ranks, batch_size, precision, checkpointing, num_tokens
    )
    return ShardedPrediction(setting.held(), dict(_Moments(setting).all()))


def smallest_number_of_gpus(
    config: GPTConfig,
    stage: str,
    memory_bytes: float,
    batch_size: int = 1,
    precision: str = "bf16",
    checkpointing: bool = True,
    most: int = 65_536,
) -> int | None:
    """The fewest GPUs on which the predicted peak fits; None if even `most` are too few.

    Padding lets a unit grow by less than a value per rank, so it decides nothing of note.
    """

    def fits(num_ranks: int) -> bool:
        step = predict_sharded(config, stage, num_ranks, batch_size, precision, checkpointing)
        return step.peak.total <= memory_bytes

    if not fits(most):
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


class _Moments:
    """The moments of a step that can be its peak, from following it unit by unit.

    FSDP keeps the root's weights from forward to the end of backward, gathers one block ahead and
    holds a block's message until the next one's is made. ZeRO-3 gathers when a unit is needed.
    """

    def __init__(self, setting: ShardedSetting) -> None:
        self.setting, self.held = setting, setting.held()
        config, kind, level = setting.config, setting.kind, setting.level
        self.gathers, self.prefetches = level >= SHARDS_WEIGHTS, level >= PREFETCHES
        self.scatters = level >= SHARDS_GRADIENTS
        self.block, self.root = setting.block_values * kind.whole, setting.root_values * kind.whole
        self.message = setting.block_values * kind.message
        self.gradient = setting.block_values * kind.gradient
        self.batch = 2 * setting.tokens * TOKEN_BYTES
        width = config.model_dim
        self.hidden = setting.tokens * width * kind.whole
        self.wide = setting.tokens * config.feed_forward_dim * kind.whole
        self.saved = block_activation_bytes(
            config, setting.batch_size, setting.tokens // setting.batch_size, kind.whole
        )
        self.kept = self.hidden if setting.checkpointing else self.saved
        self.narrow = width * config.feed_forward_dim * kind.whole
        self.feed_forward = 2 * self.narrow + width * width * kind.whole
        self.head_gradient = kind.whole * width * (config.vocab_size + 1 + config.bias)

    def all(self) -> Iterator[tuple[str, ShardedBytes]]:
        """Every moment by its name."""
        yield "loss", self._loss()
        last = self.setting.config.num_layers - 1
        # Between the second block and the last but one, bytes rise or fall evenly.
        for place in sorted({last, max(0, last - 1), min(1, last), 0}, reverse=True):
            yield from self._block(place)
        if self.scatters:
            yield "root", self._root()
        yield "optimizer", self._optimizer()

    def _loss(self) -> ShardedBytes:
        """Backward begins: all activations are there, and two gradients as large as the logits."""
        config, tokens = self.setting.config, self.setting.tokens
        logits = FULL * tokens * config.vocab_size
        head = 2 * tokens * (config.model_dim + 1) * self.setting.kind.whole + logits + FULL
        weights = self.root * self.prefetches
        return self._at(weights, config.num_layers * self.kept + head + 2 * logits, 0)

    def _block(self, place: int) -> Iterator[tuple[str, ShardedBytes]]:
        """Inside a block's backward, with `place` blocks still to come."""
        is_last = place == self.setting.config.num_layers - 1
        ahead = self.block * (self.prefetches and place > 0)
        waiting = self.message * (self.prefetches and not is_last)
        weights = (self.root + self.block) * self.gathers + ahead + waiting
        below = place * self.kept  # a block that runs again saves its kept input as well
        steps = {
            "feed-forward": (self.narrow, self.saved + self.hidden + self.wide),
            "attention": (self.feed_forward, 10 * self.hidden),
            "end of block": (self.block, 7 * self.hidden),
        }
        for name, (gradients, activations) in steps.items():
            yield f"{name} {place}", self._at(weights, below + activations, gradients, place)
        if self.scatters:  # the block's gradients are copied into one flat message
            weights = self.root * self.gathers + ahead + self.message
            kept = place * self.kept + self.hidden
            yield f"reduce {place}", self._at(weights, kept, self.block, place)

    def _root(self) -> ShardedBytes:
        """The root's gradients, complete at last, are copied into their message."""
        message = self.setting.root_values * self.setting.kind.message
        return self._at(message, 0, self.root - self.head_gradient, place=-1)

    def _optimizer(self) -> ShardedBytes:
        """All gradients in the precision of the update, and Adam's scratch of one tensor."""
        setting = self.setting
        exact = FULL * setting.values(SHARDS_STATE)
        if setting.level == 0:
            scratch = adam_scratch_bytes(setting.config)
            gradients = self.held.gradients + exact * (setting.kind.gradient < FULL)
        else:
            sizes = [setting.block_values] * setting.config.num_layers + [setting.root_values]
            pairs = zip([0, *sizes], sizes, strict=False)
            scratch = FULL * max(before + 2 * size for before, size in pairs) // setting.num_ranks
            gradients = exact
        return self._shown(scratch, 0, gradients)

    def _at(
        self, weights: int, activations: int, whole: int, place: int | None = None
    ) -> ShardedBytes:
        """`whole`: bytes of the unit's own gradients so far; the head's are there with a block."""
        setting = self.setting
        if setting.level == 0:  # the buckets exist all the time
            return self._shown(weights, activations, self.held.gradients)
        num_done = 0 if place is None else setting.config.num_layers - 1 - place
        whole += self.head_gradient * (place is not None)
        done = self.gradient * num_done
        if self.scatters:
            return self._shown(weights + whole, activations, done // setting.num_ranks)
        return self._shown(weights, activations, done + whole)

    def _shown(self, gathered: int, activations: int, gradients: int) -> ShardedBytes:
        return replace(
            self.held, gathered=gathered, activations=activations + self.batch, gradients=gradients
        )
