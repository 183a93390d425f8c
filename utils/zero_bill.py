"""ZeRO's bill with a pencil: bytes per parameter, weights sent, and the same to the byte.

How it works: stage 1 divides the optimizer state by the number of ranks, stage 2 the gradients too,
stage 3 also the weights; stage 0 is plain data parallelism. The short formulas leave out what is
small: padding, and the optimizer's step counters. `held_bytes` and `sent_bytes` count both, from a
model's real layouts, and are what `utils.techniques.zero` holds and sends, to the byte.

Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models"
(arXiv 1910.02054). Left out: activations and temporary copies (`utils.predict_sharded` has them).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from utils.config import PRESETS
from utils.costs import count_parameters
from utils.plot_axes import usd_text
from utils.techniques.flat import FlatLayout

STAGES = (0, 1, 2, 3)
FEWEST_HEADERS = ("model", "16 bytes each", "data parallel", "stage 1", "stage 2", "stage 3")
COUNTER_BYTES = 4  # Adam counts its steps, once for each tensor it updates


class Parts(NamedTuple):
    """Bytes per parameter of what Adam needs."""

    weights: float
    gradients: float
    optimizer_state: float  # two moments, and the fp32 masters of 16-bit weights

    @property
    def total(self) -> float:
        """All three."""
        return sum(self)


FP32, BF16 = Parts(4, 4, 8), Parts(2, 2, 12)


def held_per_parameter(stage: int, num_ranks: int, parts: Parts = BF16) -> Parts:
    """Bytes per parameter that one rank holds when its gradients are there."""
    weights, gradients, state = parts
    return Parts(
        weights / (num_ranks if stage >= 3 else 1),
        gradients / (num_ranks if stage >= 2 else 1),
        state / (num_ranks if stage >= 1 else 1),
    )


def sent_weights(stage: int, num_ranks: int, micro_batches: int = 1) -> float:
    """How many times the weights' bytes one rank sends in a step.

    One pass of a ring sends (N - 1)/N of what it sums or hands out. Whole gradients wait for the
    last micro-batch; gradients and weights that a rank does not keep cannot.
    """
    passes = {0: 2, 1: 2, 2: micro_batches + 1, 3: 3 * micro_batches}
    return passes[stage] * (num_ranks - 1) / num_ranks


def formulas(
    names: Iterable[str], num_ranks: int, parts: Parts = FP32, first: int = 0
) -> dict[str, tuple[float, float]]:
    """Bytes held per parameter and weights sent, for `names` of stages `first`, `first` + 1, ..."""
    return {
        name: (held_per_parameter(stage, num_ranks, parts).total, sent_weights(stage, num_ranks))
        for stage, name in enumerate(names, start=first)
    }


def held_bytes(layouts: Sequence[FlatLayout], stage: int, parts: Parts = FP32) -> int:
    """`held_per_parameter` to the byte, of a model cut into these layouts (stages 1 to 3)."""
    if stage not in STAGES[1:]:
        raise ValueError(f"Stage {stage!r} has no shards: the exact bill is of stages 1, 2 and 3.")
    values = sum(layout.num_values for layout in layouts)
    padded = sum(layout.padded_values for layout in layouts)
    shard = sum(layout.shard_values for layout in layouts)
    return int(
        parts.weights * (shard if stage == 3 else padded)
        + parts.gradients * (values if stage == 1 else shard)
        + parts.optimizer_state * shard
        + COUNTER_BYTES * len(layouts)
    )


def sent_bytes(
    layouts: Sequence[FlatLayout], stage: int, parts: Parts = FP32, micro_batches: int = 1
) -> int:
    """`sent_weights` to the byte: the padding travels too."""
    padded = sum(layout.padded_values for layout in layouts)
    passes = sent_weights(stage, layouts[0].world_size, micro_batches)
    return round(passes * padded * parts.weights)


def fewest_gpus(preset: str, stage: int, memory_bytes: float, most: int = 4096) -> int:
    """The fewest GPUs that hold weights, gradients and optimizer state of a model of
    `utils.config.PRESETS` in bf16; 0 if `most` are too few. Activations come on top.
    """
    size = count_parameters(PRESETS[preset]).total
    held = (held_per_parameter(stage, n).total * size for n in range(1, most + 1))
    return next((n for n, each in enumerate(held, start=1) if each <= memory_bytes), 0)


def fewest_row(preset: str, memory_bytes: float, usd_per_gpu_hour: float) -> tuple[str, ...]:
    """A row under FEWEST_HEADERS: GPUs with that memory, and their rent an hour."""
    size = count_parameters(PRESETS[preset]).total
    fewest = [fewest_gpus(preset, stage, memory_bytes) for stage in STAGES]
    rents = [f"{n}, {usd_text(n * usd_per_gpu_hour)}" if n else "none do" for n in fewest]
    return preset, f"{BF16.total * size / 1e9:,.0f} GB", *rents


def largest_batch(held_bytes: float, bytes_per_sequence: float, memory_bytes: float) -> int:
    """How many sequences fit beside what is held; 0 if none does."""
    return max(0, math.floor((memory_bytes - held_bytes) / bytes_per_sequence))
