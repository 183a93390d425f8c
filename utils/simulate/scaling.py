"""From one GPU to thousands: step time, efficiency, GPU-hours and dollars of data parallelism.

How it works: a `Setup` fixes the model, what a GPU does in a second, and the links. A step is
simulated for each number of GPUs; efficiency is the step without any waiting over the step. Weak
scaling keeps the batch of a GPU, strong scaling the batch of all: there each GPU has less to do
and as much to send.

Left out: stragglers, network contention, restarts, the optimizer's time, whether the model fits
the chip at all (`Setup.replica_bytes` says what it would need), and that a chip does a smaller
batch less efficiently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.simulate.buckets import BUCKET_BYTES, FIRST_BUCKET_BYTES
from utils.simulate.collectives import collective_seconds
from utils.simulate.data_parallel import after_backward, overlapped
from utils.simulate.layers import gpt_layers
from utils.simulate.links import LINKS, Link, cluster_of
from utils.simulate.timeline import Timeline, simulate

BYTES_PER_PARAMETER = 18  # bf16 weights, fp32 gradients, master weights and Adam: utils.costs


@dataclass(frozen=True)
class Setup:
    """What stays the same while the number of GPUs changes."""

    config: GPTConfig
    flops_per_s: float  # of one GPU at work: its peak times a utilisation
    inside: Link = LINKS["NVLink 4 (H100)"]
    between: Link = LINKS["InfiniBand 400 Gbit/s"]
    gpus_per_node: int = 8
    value_bytes: int = 4  # of a gradient on its way
    overlaps: bool = True
    first_bytes: int = FIRST_BUCKET_BYTES
    bucket_bytes: int = BUCKET_BYTES
    schedule: str = "best"

    @property
    def replica_bytes(self) -> int:
        """Weights, gradients and optimizer of one replica, activations not counted."""
        return BYTES_PER_PARAMETER * count_parameters(self.config).total


@dataclass(frozen=True)
class ScalingPoint:
    """One step on so many GPUs."""

    num_gpus: int
    batch_per_gpu: int  # sequences that a GPU works on in one step
    tokens_per_step: int  # of all GPUs
    timeline: Timeline

    @property
    def step_s(self) -> float:
        """Seconds of the step."""
        return self.timeline.total_s

    @property
    def efficiency(self) -> float:
        """The step without waiting over the step; GPU-hours and dollars rise by 1 / efficiency."""
        return self.timeline.efficiency

    @property
    def tokens_per_s(self) -> float:
        """Throughput of all GPUs."""
        return self.tokens_per_step / self.step_s

    @property
    def gpu_hours_per_billion_tokens(self) -> float:
        """GPU-hours that a billion tokens take."""
        return 1e9 / self.tokens_per_s * self.num_gpus / 3600

    def usd_per_billion_tokens(self, usd_per_gpu_hour: float) -> float:
        """Rent of a billion tokens at a price of `utils.prices`."""
        return self.gpu_hours_per_billion_tokens * usd_per_gpu_hour


def simulate_step(
    setup: Setup, num_gpus: int, batch_per_gpu: int, num_micro_batches: int = 1
) -> ScalingPoint:
    """One data-parallel step; each of the micro-batches holds an equal part of `batch_per_gpu`.

    Raises ValueError for GPUs that do not fill their nodes, or a batch that does not divide.
    """
    if num_micro_batches < 1 or batch_per_gpu % num_micro_batches:
        raise ValueError(
            f"{batch_per_gpu} sequences do not divide into {num_micro_batches} micro-batches."
        )
    cluster = cluster_of(num_gpus, setup.inside, setup.between, setup.gpus_per_node)
    send_s = partial(collective_seconds, "all-reduce", cluster=cluster, schedule=setup.schedule)
    layers = gpt_layers(setup.config, batch_per_gpu // num_micro_batches, setup.flops_per_s)
    if setup.overlaps:
        tasks = overlapped(
            layers, send_s, setup.value_bytes, num_micro_batches,
            first_bytes=setup.first_bytes, bucket_bytes=setup.bucket_bytes,
        )  # fmt: skip
    else:
        tasks = after_backward(layers, send_s, setup.value_bytes, num_micro_batches)
    tokens = num_gpus * batch_per_gpu * setup.config.context_length
    return ScalingPoint(num_gpus, batch_per_gpu, tokens, simulate(tasks))


def weak_scaling(
    setup: Setup, gpu_counts: Sequence[int], batch_per_gpu: int
) -> list[ScalingPoint]:
    """The batch grows with the GPUs: `batch_per_gpu` sequences on each."""
    return [simulate_step(setup, num_gpus, batch_per_gpu) for num_gpus in gpu_counts]


def strong_scaling(
    setup: Setup, gpu_counts: Sequence[int], global_batch: int, largest_micro_batch: int = 8
) -> list[ScalingPoint]:
    """`global_batch` sequences on all GPUs together, in micro-batches that fit a GPU.

    Raises ValueError for a number of GPUs that does not divide the batch.
    """
    points = []
    for num_gpus in gpu_counts:
        if global_batch % num_gpus:
            raise ValueError(
                f"A batch of {global_batch} sequences does not divide among {num_gpus} GPUs."
            )
        each = global_batch // num_gpus
        micro = max(n for n in range(1, min(each, largest_micro_batch) + 1) if each % n == 0)
        points.append(simulate_step(setup, num_gpus, each, each // micro))
    return points
