"""DDP, ZeRO-2, FSDP and YaFSDP side by side: one step of the same Llama on the same A100s.

How it works: the parameters fitted to YaFSDP's published table (utils.simulate.yafsdp_published)
serve for all four methods. DDP and ZeRO-2 send buckets of the size of a block, so that no method
has more messages than another. Each GPU has one sequence; gradients are summed in fp32.
Left out: activations in memory, and any published figure that would check DDP and ZeRO-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from utils.hardware import find_chip
from utils.simulate.data_parallel import overlapped
from utils.simulate.llama import LlamaShape
from utils.simulate.published_fit import CHIP, PublishedFit, fsdp_tasks, yafsdp_tasks
from utils.simulate.sharded_optimizer import sharded_optimizer
from utils.simulate.timeline import Task, Timeline, simulate

WEIGHT_BYTES, STATE_BYTES = 2, 16  # bf16 weights; those, bf16 gradients, fp32 master and Adam


@dataclass(frozen=True)
class MethodStep:
    """One method's step of one model on so many GPUs."""

    method: str
    timeline: Timeline
    memory_bytes: float  # of one GPU, without activations
    tokens: int  # of all GPUs
    num_gpus: int

    @property
    def fits(self) -> bool:
        """Whether weights, gradients, optimizer and buffers leave anything of the memory."""
        return self.memory_bytes < chip_memory_bytes()

    def usd_per_billion_tokens(self, usd_per_gpu_hour: float) -> float:
        """Rent of a billion tokens."""
        hours = 1e9 / self.tokens * self.timeline.total_s / 3600
        return hours * self.num_gpus * usd_per_gpu_hour


def sharding_steps(
    shape: LlamaShape, num_gpus: int, sequence_length: int, fit: PublishedFit
) -> list[MethodStep]:
    """A step of each of the four methods, one sequence per GPU, in the order of the lessons."""
    layers = fit.layers(shape, sequence_length)
    both_s = fit.collective_s(num_gpus)
    block_bytes = 4 * layers[1].num_values
    caps = {"first_bytes": block_bytes, "bucket_bytes": block_bytes}
    tasks: dict[str, list[Task]] = {
        "DDP": overlapped(layers, lambda num_bytes: 2 * both_s(num_bytes), **caps),
        "ZeRO-2": sharded_optimizer(layers, both_s, both_s, **caps),
        "FSDP": fsdp_tasks(layers, num_gpus, fit),
        "YaFSDP": yafsdp_tasks(layers, num_gpus, fit, shape),
    }
    held = memory_bytes(shape, max(layer.num_values for layer in layers), num_gpus)
    tokens = num_gpus * sequence_length
    return [
        MethodStep(method, simulate(listed), held[method], tokens, num_gpus)
        for method, listed in tasks.items()
    ]


def memory_bytes(shape: LlamaShape, largest_unit: int, num_gpus: int) -> dict[str, float]:
    """Bytes of one GPU by method: 16 a parameter, of which each method splits a part.

    FSDP holds two gathered layers beside its share; YaFSDP two buffers for weights and two for
    gradients, of the largest layer and 16 bits each.
    """
    whole, split = shape.num_parameters, shape.num_parameters / num_gpus
    unit_bytes = WEIGHT_BYTES * largest_unit
    return {
        "DDP": STATE_BYTES * whole,
        "ZeRO-2": WEIGHT_BYTES * whole + (STATE_BYTES - WEIGHT_BYTES) * split,
        "FSDP": STATE_BYTES * split + 2 * unit_bytes,
        "YaFSDP": STATE_BYTES * split + 4 * unit_bytes,
    }


@lru_cache
def chip_memory_bytes() -> float:
    """Memory of the chip that the published runs used."""
    return find_chip(CHIP).memory_gb * 1e9
