"""A step of a 7-billion model on 64 H100s, simulated: FSDP with and without prefetch, and DDP.

How it works: `utils.simulate` with Llama 2's shape, one sequence of so many tokens on each GPU,
bf16 weights and gradients, chips at half of their peak (an assumption), nodes of eight joined by
`network`. DDP is simulated as if it fitted.

Left out: what the simulator leaves out; above all FSDP's own work beside computing and sending.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from utils.config import PRESETS
from utils.hardware import find_chip
from utils.simulate import (
    LINKS,
    FullySharded,
    Layer,
    Link,
    Timeline,
    cluster_of,
    collective_seconds,
    fully_sharded,
    gpt_layers,
    overlapped,
    simulate,
)

LLAMA = PRESETS["llama2-7b-shape"]
NUM_GPUS, UTILISATION, VALUE_BYTES = 64, 0.5, 2
FAST, SLOW = LINKS["InfiniBand 400 Gbit/s"], LINKS["Ethernet 25 Gbit/s"]


def fsdp_step(num_tokens: int, ahead: int, network: Link = FAST) -> Timeline:
    """FSDP that gathers `ahead` layers ahead, in both directions; 0 gathers when needed."""
    gather_s, scatter_s = (_seconds(kind, network) for kind in ("all-gather", "reduce-scatter"))
    how = FullySharded(forward_prefetch=ahead, backward_prefetch=ahead)
    layers = _layers(num_tokens)
    return simulate(fully_sharded(layers, gather_s, scatter_s, VALUE_BYTES, VALUE_BYTES, how))


def ddp_step(num_tokens: int, network: Link = FAST) -> Timeline:
    """Data parallelism with buckets of the usual size."""
    seconds = _seconds("all-reduce", network)
    return simulate(overlapped(_layers(num_tokens), seconds, value_bytes=VALUE_BYTES))


def gather_per_forward(timeline: Timeline, layer: str = "block 1") -> float:
    """Seconds of a layer's gather over those of its forward; above 1 no prefetch can hide it."""
    seconds = {span.task.name: span.task.seconds for span in timeline.spans}
    return seconds[f"gather forward {layer}"] / seconds[f"forward {layer}"]


def _layers(num_tokens: int) -> tuple[Layer, ...]:
    flops_per_s = UTILISATION * find_chip("H100 SXM").peak_flops()
    return tuple(gpt_layers(replace(LLAMA, context_length=num_tokens), 1, flops_per_s))


def _seconds(kind: str, network: Link) -> Callable[[float], float]:
    return partial(collective_seconds, kind, cluster=cluster_of(NUM_GPUS, between=network))
