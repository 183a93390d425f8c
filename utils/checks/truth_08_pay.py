"""What lab 08's "does it pay?" is judged by: a job, three numbers, and the mistakes behind others.

How it works: `Job` is what a learner's function gets. Each number is a formula with switches, one
for each mistake. The memory of the short cases is chosen so that one byte less would not do.
Left out: the first gather and the last reduction of a step, which nothing can hide; the root's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.hardware import find_chip
from utils.predict_sharded import predict_sharded

MOST_GPUS = 4096
STATE_BYTES, WEIGHT_BYTES = 16, 2


@dataclass(frozen=True)
class Job:
    """A model of equal layers and a root (all the rest) on some kind of GPU."""

    num_layers: int
    layer_values: int  # parameters of one layer
    root_values: int
    num_tokens: int  # on each GPU, in a step
    activation_bytes: int  # for each token, at the peak
    gradient_bytes: int  # a value, of gradients that are flat or travel: 2 or 4
    memory_bytes: int  # of one GPU
    flops_per_s: float  # of one GPU, as reached
    link_bits_per_s: float  # what one GPU sends
    usd_per_hour: float  # of one GPU


def shard_values(values: int, num_gpus: int) -> int:
    """An N-th of a padded flat tensor."""
    return -(-values // num_gpus)


def needed_bytes(
    job: Job, num_gpus: int, shard: Callable[[int, int], float] = shard_values,
    num_whole: float = 2, has_root: bool = True, num_gradients: float = 1,
    activations: float = 1, weight_bytes: float = WEIGHT_BYTES,
) -> float:  # fmt: skip
    """The peak of one GPU."""
    layer, root = shard(job.layer_values, num_gpus), shard(job.root_values, num_gpus)
    held = STATE_BYTES * (job.num_layers * layer + root)
    whole = weight_bytes * (num_whole * layer + has_root * root)
    flat = num_gradients * job.gradient_bytes * layer
    moving = activations * job.activation_bytes * job.num_tokens
    return held + num_gpus * (whole + flat) + moving


def fewest_gpus(job: Job, needed: Callable[[Job, int], float] = needed_bytes) -> int | None:
    """The smallest number of GPUs on which the peak fits."""
    sizes = range(1, MOST_GPUS + 1)
    return next((n for n in sizes if needed(job, n) <= job.memory_bytes), None)


@dataclass(frozen=True)
class Seconds:
    """Of one layer: its messages, and its compute for one token in forward; backward takes two."""

    gather: float
    reduce: float
    token: float


def seconds(job: Job, num_gpus: int) -> Seconds:
    """Every rank sends all shards of a layer's flat tensor but one."""
    sent = (num_gpus - 1) * shard_values(job.layer_values, num_gpus)
    bytes_per_s = job.link_bits_per_s / 8
    return Seconds(
        WEIGHT_BYTES * sent / bytes_per_s,
        job.gradient_bytes * sent / bytes_per_s,
        2 * job.layer_values / job.flops_per_s,
    )


def hiding_tokens(s: Seconds) -> float:
    """From how many tokens on nothing is exposed, neither in forward nor in backward."""
    return max(s.gather / s.token, (s.gather + s.reduce) / (2 * s.token))


def exposed_s(job: Job, s: Seconds) -> float:
    """What the messages of a step take longer than the compute beside them."""
    forward = max(0.0, s.gather - job.num_tokens * s.token)
    backward = max(0.0, s.gather + s.reduce - 2 * job.num_tokens * s.token)
    return job.num_layers * (forward + backward)


def exposed_usd(job: Job, num_gpus: int) -> float:
    """All GPUs wait, and all are paid for."""
    late_s = exposed_s(job, seconds(job, num_gpus))
    return late_s * num_gpus * job.usd_per_hour / 3600


def tight(job: Job, num_gpus: int) -> Job:
    """The same with so little memory that it takes so many GPUs."""
    return replace(job, memory_bytes=int(needed_bytes(job, num_gpus)))


def gpt_job(
    config: GPTConfig, chip: str, num_tokens: int, link_bits_per_s: float, usd_per_hour: float,
    share_of_peak: float = 0.5,
) -> Job:  # fmt: skip
    """A GPT whose blocks run again in backward; messages of gradients in fp32."""
    count, gpu = count_parameters(config), find_chip(chip)
    step = predict_sharded(config, "FSDP", 64, 1, "bf16, fp32 shards", True)
    root = count.total - config.num_layers * count.block
    return Job(
        config.num_layers,
        count.block,
        root,
        num_tokens,
        step.peak.activations // config.context_length,
        4,
        int(gpu.memory_gb * 1e9),
        share_of_peak * gpu.peak_flops(),
        link_bits_per_s,
        usd_per_hour,
    )


_SMALL = Job(4, 346, 609, 31, 16, 4, 0, 6e5, 2e5, 3.0)  # only backward's messages are exposed
_EVEN = Job(6, 191, 758, 42, 32, 2, 0, 1e6, 5e4, 2.0)  # forward's and backward's alike
_LARGE = Job(32, 202_383_363, 262_148_097, 16_384, 4_000_000, 4, 80 * 10**9, 4e14, 4e11, 3.99)
CASES = (
    tight(_SMALL, 19),
    tight(_EVEN, 19),
    tight(replace(_EVEN, num_tokens=2, activation_bytes=400), 19),
    _LARGE,
    replace(_LARGE, num_tokens=2048, link_bits_per_s=1.7e11),
    replace(_SMALL, memory_bytes=10**6),
    replace(_LARGE, activation_bytes=5_000_000),
    tight(_LARGE, MOST_GPUS + 2_000),
)
