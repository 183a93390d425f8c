"""What ZeRO should hold and send, by formula: per parameter for a table, and exact to the byte.

How it works: three things are held for each parameter, its weight, its gradient and the optimizer's
state, and each stage cuts one more of them into N shards. With Adam and 16-bit weights that is
2 + 2 + 12 bytes (fp32 master and two moments), with fp32 weights 4 + 4 + 8. The exact functions
take a model's units as `FlatLayout`s and add what the table leaves out: padding to equal shards,
and the step counter of 4 bytes that torch's Adam keeps for each tensor it is given, here each unit.

Left out: activations and temporary tensors; frozen parameters, whole on every rank.
Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models"
(arXiv 1910.02054), sections 3, 5 and 7.
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.techniques.flat import FlatLayout

STAGES = (0, 1, 2, 3)  # 0 is plain data parallelism
STEP_COUNTER_BYTES = 4
# By the categories of `utils.memory`, in the order in which the stages cut them: the last first.
LOW_PRECISION = {"parameters": 2, "gradients": 2, "optimizer state": 12}
FULL_PRECISION = {"parameters": 4, "gradients": 4, "optimizer state": 8}
CUT_FROM_STAGE = {"parameters": 3, "gradients": 2, "optimizer state": 1}


def bytes_per_parameter(
    stage: int, num_ranks: int, low_precision: bool = True
) -> dict[str, float]:
    """Bytes that a rank holds for each parameter of the model, by category."""
    _check(stage, num_ranks)
    whole = LOW_PRECISION if low_precision else FULL_PRECISION
    return {
        name: size / num_ranks if stage >= CUT_FROM_STAGE[name] else float(size)
        for name, size in whole.items()
    }


def traffic_factor(stage: int, num_micro_batches: int = 1) -> int:
    """What a rank sends in a step, in units of (N - 1) / N of the weights' bytes.

    An all-reduce is a reduce-scatter and an all-gather, so stages 0 and 1 send the same. From stage
    2 on each micro-batch reduce-scatters; in stage 3 it also gathers twice.
    """
    _check(stage, 1)
    if num_micro_batches < 1:
        raise ValueError(f"A step has at least 1 micro-batch, not {num_micro_batches}.")
    return {0: 2, 1: 2, 2: num_micro_batches + 1, 3: 3 * num_micro_batches}[stage]


def held_bytes(
    layouts: Sequence[FlatLayout], stage: int, low_precision: bool = True
) -> dict[str, int]:
    """Exactly what `utils.techniques.zero` holds on each rank after backward, by category.

    Stages 1 to 3, with Adam, every parameter used.
    """
    _check(stage, layouts[0].world_size, lowest=1)
    whole = LOW_PRECISION if low_precision else FULL_PRECISION
    shards = sum(layout.shard_values for layout in layouts)
    values = {"parameters": sum(layout.padded_values for layout in layouts)}
    values["gradients"] = sum(layout.num_values for layout in layouts)  # each still its own tensor
    held = {
        name: size * (shards if stage >= CUT_FROM_STAGE[name] else values[name])
        for name, size in whole.items()
    }
    held["optimizer state"] += STEP_COUNTER_BYTES * len(layouts)
    return held


def sent_bytes(
    layouts: Sequence[FlatLayout],
    stage: int,
    low_precision: bool = True,
    num_micro_batches: int = 1,
) -> int:
    """Exactly what each rank sends in a step; clipping adds an all-reduce of one fp64 number."""
    _check(stage, layouts[0].world_size, lowest=1)
    once = sum((layout.world_size - 1) * layout.shard_values for layout in layouts)
    return traffic_factor(stage, num_micro_batches) * once * (2 if low_precision else 4)


def most_weight_bytes(
    layers: Sequence[FlatLayout], root: FlatLayout | None, low_precision: bool = True
) -> int:
    """The most weights that stage 3 has at once: all shards, the root, and one layer, the largest.

    The root is whole from the first layer to the last, for embeddings begin the model and the
    output layer ends it.
    """
    units = [*layers, *([root] if root else [])]
    shards = sum(layout.shard_values for layout in units)
    whole = max((layout.padded_values for layout in layers), default=0)
    whole += root.padded_values if root else 0
    return (shards + whole) * (2 if low_precision else 4)


def _check(stage: int, num_ranks: int, lowest: int = 0) -> None:
    if stage not in STAGES[lowest:]:
        known = ", ".join(map(str, STAGES[lowest:]))
        raise ValueError(f"There is no stage {stage} here: take one of {known}.")
    if num_ranks < 1:
        raise ValueError(f"At least 1 rank is needed, not {num_ranks}.")
