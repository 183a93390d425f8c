"""What FSDP2 sends in one step, by formula: exact to the byte for each rank under gloo.

How it works: FSDP2 cuts each parameter along its first dimension into as many parts of equal height
as there are shards; where the rows do not divide, zeros fill the last parts, and they travel too. A
unit (a block, or everything else: the root) is gathered and reduced in one message of all its
parameters. Per micro-batch a unit is gathered once in forward, and once more in backward if it was
freed in between; the root never is, for backward needs it at once. Gradients are reduced
once a step. In units of the model, for N ranks, b the blocks' share of the parameters:

    all-gathers      (1 + b) (N-1)/N    or (N-1)/N when nothing is freed after forward
    reduce-scatter   (N-1)/N            by our ring or by NCCL; gloo's all-reduce sends twice that

Left out: NCCL, whose bytes no program can count; the gathers of `whole_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.peers import TrainingJob
from utils.peers.fsdp2 import Fsdp2Options
from utils.ranks import gloo_bytes

FULL, LOW = 4, 2  # bytes of a value in fp32 and in bf16


class Unit(NamedTuple):
    """Parameters that travel together, by shape, and how many such units the model has."""

    shapes: tuple[tuple[int, ...], ...]
    count: int
    is_root: bool

    def shard_values(self, num_shards: int) -> int:
        """Values in one rank's part, the padding included."""
        return sum(rows_in_shard(shape, num_shards) * _row(shape) for shape in self.shapes)


def units_of(config: GPTConfig) -> list[Unit]:
    """One block, as often as there are blocks, and the root."""
    model = build_gpt(replace(config, num_layers=1), device="meta")
    block = [tuple(p.shape) for p in model.blocks[0].parameters()]
    rest = [tuple(p.shape) for n, p in model.named_parameters() if not n.startswith("blocks.")]
    return [Unit(tuple(block), config.num_layers, False), Unit(tuple(rest), 1, True)]


def rows_in_shard(shape: Sequence[int], num_shards: int) -> int:
    """The height of every part, the last rank's filled up with zeros."""
    return -(-shape[0] // num_shards)


def fsdp2_shard_bytes(
    config: GPTConfig, world_size: int, rank: int = 0, num_shards: int | None = None
) -> dict[str, int]:
    """What a rank holds in fp32 after backward, by category of the meter.

    Parameters and gradients are padded; Adam's two moments are as high as the rows that are really
    there, of which the last ranks may have fewer; each parameter has a counter of 4 bytes.
    """
    shards = num_shards or world_size
    padded = state = 0
    for unit in units_of(config):
        padded += FULL * unit.count * unit.shard_values(shards)
        for shape in unit.shapes:
            height = rows_in_shard(shape, shards)
            rows = min(height, max(0, shape[0] - (rank % shards) * height))
            state += unit.count * (2 * FULL * rows * _row(shape) + FULL)
    return {"parameters": padded, "gradients": padded, "optimizer state": state}


def fsdp2_traffic(job: TrainingJob, world_size: int, rank: int = 0, **options: Any) -> int:
    """Bytes of tensors that `rank` sends in one step; options are those of `Fsdp2System`."""
    chosen = Fsdp2Options(**options)
    chosen.check(world_size)
    if world_size == 1:
        return 0
    sent = 0
    for unit in units_of(job.config):
        sent += unit.count * _gathers(unit, job, world_size, chosen)
        sent += unit.count * _reductions(unit, job, world_size, rank, chosen)
    if job.max_norm is not None:
        sent += _norms(job.config, world_size, rank, chosen)
    return sent


def traffic_in_models(config: GPTConfig, sent_bytes: float) -> float:
    """Bytes in units of the model in fp32, the unit of the course's tables."""
    num_values = sum(u.count * sum(_row(s) * s[0] for s in u.shapes) for u in units_of(config))
    return sent_bytes / (FULL * num_values)


def _gathers(unit: Unit, job: TrainingJob, world_size: int, options: Fsdp2Options) -> int:
    """A ring of N - 1 hops with this rank's part, once or twice a micro-batch."""
    shards = options.num_shards or world_size
    value_bytes = LOW if job.low_precision else FULL
    mine = unit.shard_values(shards) * value_bytes
    once = (shards - 1) * mine
    again = options.reshard_after_forward
    if unit.is_root or again is False:
        return job.num_micro_batches * once
    if again is True:
        return job.num_micro_batches * 2 * once
    # Freed only down to parts for `again` ranks, which are near to each other.
    return job.num_micro_batches * (once + (again - 1) * shards * mine // again)


def _reductions(
    unit: Unit, job: TrainingJob, world_size: int, rank: int, options: Fsdp2Options
) -> int:
    shards = options.num_shards or world_size
    copies = world_size // shards
    is_low = job.low_precision and options.low_precision_sums
    value_bytes = LOW if is_low else FULL
    mine = unit.shard_values(shards) * value_bytes
    if options.ring:
        sent = (shards - 1) * mine
    else:
        sent = gloo_bytes.all_reduce(shards * mine, value_bytes, rank % shards, shards).data_bytes
    if copies > 1:
        sent += gloo_bytes.all_reduce(mine, value_bytes, rank // shards, copies).data_bytes
    num_times = job.num_micro_batches if options.sync_every_micro_batch else 1
    return num_times * sent


def _norms(config: GPTConfig, world_size: int, rank: int, options: Fsdp2Options) -> int:
    """One norm a parameter, all in one sum over the ranks that share a copy of the model."""
    shards = options.num_shards or world_size
    num_norms = sum(unit.count * len(unit.shapes) for unit in units_of(config))
    return gloo_bytes.all_reduce(FULL * num_norms, FULL, rank % shards, shards).data_bytes


def _row(shape: Sequence[int]) -> int:
    """Values in one row."""
    return math.prod(shape[1:])
