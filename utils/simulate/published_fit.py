"""What one step of YaFSDP's published runs costs, given five parameters.

How it works: `PublishedFit` holds what the authors' table does not say of their machines; with it,
`yafsdp_tasks` and `fsdp_tasks` are a step of any Llama on any number of their GPUs. A collective
is NCCL's ring over all GPUs: a start, a hop to each other GPU at its published time, and bytes
that leave and enter every node once. What the parameters are worth, and what was assumed, stands
in utils.simulate.yafsdp_published, which fits them.

Left out: what computing and sending do to each other when they share a GPU; the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from utils.hardware import find_chip
from utils.simulate.fully_sharded import FullySharded, fully_sharded
from utils.simulate.layers import Layer
from utils.simulate.links import LINKS
from utils.simulate.llama import LlamaShape, llama_layers
from utils.simulate.timeline import Task
from utils.simulate.two_buffers import two_buffers

CHIP, GPUS_PER_NODE = "A100 80GB", 8
INSIDE, BETWEEN = LINKS["NVLink 3 (A100)"], LINKS["InfiniBand 400 Gbit/s"]
CAST_BYTES_PER_VALUE = 6  # bf16 read, fp32 written


@dataclass(frozen=True)
class PublishedFit:
    """The five parameters; for each, see the head of utils.simulate.yafsdp_published."""

    utilisation: float
    node_bytes_per_s: float
    start_s: float
    copies_s_per_value: float
    scatter_share: float

    def collective_s(
        self, num_gpus: int, collective_share: float = 1.0
    ) -> Callable[[float], float]:
        """Seconds of an all-gather or reduce-scatter as a function of its bytes.

        Within one node the bytes travel over NVLink at its published rate. Raises ValueError for
        GPUs that do not fill their nodes.
        """
        nodes, rest = divmod(num_gpus, GPUS_PER_NODE)
        if num_gpus < 1 or (nodes and rest):
            raise ValueError(
                f"{num_gpus} GPUs do not fill nodes of {GPUS_PER_NODE}; take a multiple of "
                f"{GPUS_PER_NODE}, or fewer than {GPUS_PER_NODE}."
            )
        if num_gpus == 1:
            return lambda num_bytes: 0.0
        between = nodes if nodes > 1 else 0
        hops_s = between * BETWEEN.latency_s + (num_gpus - 1 - between) * INSIDE.latency_s
        rate = collective_share * (self.node_bytes_per_s if nodes > 1 else INSIDE.bytes_per_s)
        s_per_byte = (num_gpus - 1) / num_gpus / rate
        return lambda num_bytes: self.start_s + hops_s + s_per_byte * num_bytes

    def layers(
        self, shape: LlamaShape, num_tokens: int, checkpointed_layers: int = 0
    ) -> tuple[Layer, ...]:
        """The model's units for one sequence on one GPU at work."""
        rate = self.utilisation * _peak_flops()
        return llama_layers(shape, num_tokens, rate, checkpointed_layers)


def fsdp_tasks(layers: tuple[Layer, ...], num_gpus: int, fit: PublishedFit) -> list[Task]:
    """One step of FSDP: copies before each reduce-scatter, and that at its share of bandwidth."""
    copies = FullySharded(gradient_copies_s=lambda values: fit.copies_s_per_value * values)
    scatter_s = fit.collective_s(num_gpus, fit.scatter_share)
    return fully_sharded(layers, fit.collective_s(num_gpus), scatter_s, how=copies)


def yafsdp_tasks(
    layers: tuple[Layer, ...], num_gpus: int, fit: PublishedFit, shape: LlamaShape
) -> list[Task]:
    """One step of YaFSDP: norms apart, and a cast before each reduce-scatter."""
    both_s = fit.collective_s(num_gpus)
    return two_buffers(
        layers, both_s, both_s, norm_values=shape.norm_values, cast_s=cast_seconds
    )


def cast_seconds(num_values: float) -> float:
    """A gradient's cast from bf16 to fp32 at the chip's published memory bandwidth."""
    return num_values * CAST_BYTES_PER_VALUE / _memory_bytes_per_s()


@lru_cache
def _peak_flops() -> float:
    return find_chip(CHIP).peak_flops()


@lru_cache
def _memory_bytes_per_s() -> float:
    return find_chip(CHIP).bandwidth_tb_s * 1e12
