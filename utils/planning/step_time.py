"""Seconds of one step of a recipe on a cluster, by part: the layers, the messages, the optimizer.

How it works: `layer_times` says how long each layer computes. The method's own builder of
`utils.simulate` puts layers and messages on streams, and what nothing hides is exposed. DDP and
ZeRO send during backward, FSDP, ZeRO-3 and YaFSDP gather ahead. Micro-batches before the last one
send what the method cannot keep: nothing in DDP and ZeRO-1, gradients in ZeRO-2, weights in FSDP
(torch's; ours and DeepSpeed's ZeRO-3 both). Hidden messages slow compute down, for they take the
same memory and some of the same processors. The optimizer's time is bytes over bandwidth.

Left out: reading the data, clipping, a method's own overheads (utils.planning.published shows how
much that may be), our teaching versions without overlap: the planner times them as if they had it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

from utils.config import GPTConfig
from utils.costs import training_flops
from utils.hardware import Chip
from utils.planning.assumptions import Assumptions
from utils.planning.layer_time import Pace, layer_times
from utils.planning.sharding_bytes import setting_of
from utils.recipe import TrainingRecipe
from utils.sharded_bytes import SHARDS_STATE
from utils.simulate.collectives import collective_seconds
from utils.simulate.data_parallel import overlapped
from utils.simulate.fully_sharded import fully_sharded
from utils.simulate.layers import Layer
from utils.simulate.links import Cluster
from utils.simulate.sharded_optimizer import sharded_optimizer
from utils.simulate.timeline import COMMUNICATION, Task, simulate
from utils.simulate.two_buffers import two_buffers

WEIGHT_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class StepTime:
    """One step: `parts_s` adds up to `total_s`."""

    parts_s: Mapping[str, float]
    model_flops: float  # of all GPUs, nothing counted twice
    tokens: int  # of all GPUs
    num_gpus: int
    peak_flops_per_s: float  # of one GPU at the recipe's precision

    @property
    def total_s(self) -> float:
        """Seconds of the step."""
        return sum(self.parts_s.values())

    @property
    def tokens_per_s(self) -> float:
        """Of all GPUs."""
        return self.tokens / self.total_s

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation."""
        return self.model_flops / (self.total_s * self.num_gpus * self.peak_flops_per_s)

    def gpu_hours(self, num_tokens: float) -> float:
        """Hours of one GPU that so many tokens take."""
        return num_tokens / self.tokens_per_s * self.num_gpus / 3600


@lru_cache(maxsize=4096)
def step_time(
    recipe: TrainingRecipe, config: GPTConfig, chip: Chip, cluster: Cluster,
    assumptions: Assumptions, num_tokens: int = 0,
) -> StepTime:  # fmt: skip
    """Predict a step. The cluster's links count with the share that software reaches.

    Raises ValueError for a precision that the chip has no rate for, for no known bandwidth, and
    for a cluster of another number of GPUs than the recipe's ranks.
    """
    if recipe.num_ranks != cluster.num_gpus:
        raise ValueError(
            f"The recipe is for {recipe.num_ranks} ranks, but the cluster has {cluster.num_gpus}."
        )
    tokens = num_tokens or config.context_length
    pace = Pace.of(chip, recipe.precision, assumptions)
    times = layer_times(recipe, config, tokens, pace)
    messages = _messages(recipe, times.layers, _slower(cluster, assumptions))
    updated = setting_of(recipe, config).values(SHARDS_STATE)
    moved = assumptions.optimizer_bytes_per_value * updated
    count = recipe.micro_batches
    parts = {name: count * seconds for name, seconds in times.parts_s.items()}
    parts |= {
        "exposed messages": messages.exposed_s,
        "slowed by messages": assumptions.contention * messages.hidden_s,
        "optimizer": moved / pace.memory_bytes_per_s,
    }
    flops = training_flops(config, recipe.sequences_per_step, tokens)
    return StepTime(
        parts, flops, recipe.sequences_per_step * tokens, recipe.num_ranks,
        chip.peak_flops(recipe.precision),
    )  # fmt: skip


def _slower(cluster: Cluster, assumptions: Assumptions) -> Cluster:
    inside, between = (
        link.at_share(assumptions.link_share) for link in (cluster.inside, cluster.between)
    )
    return Cluster(cluster.num_nodes, cluster.gpus_per_node, inside, between)


class _Messages(NamedTuple):
    """Seconds of messages in one step: those that compute waits for, and those it hides."""

    exposed_s: float = 0.0
    hidden_s: float = 0.0

    @classmethod
    def of(cls, tasks: list[Task], count: int = 1) -> _Messages:
        """Of `count` times these tasks, one after the other."""
        timeline = simulate(tasks)
        busy_s, exposed_s = timeline.busy_s(COMMUNICATION), timeline.exposed_s
        return cls(count * exposed_s, count * max(0.0, busy_s - exposed_s))

    def plus(self, other: _Messages) -> _Messages:
        """Both, one after the other."""
        return _Messages(self.exposed_s + other.exposed_s, self.hidden_s + other.hidden_s)


def _messages(recipe: TrainingRecipe, layers: tuple[Layer, ...], cluster: Cluster) -> _Messages:
    """By the method's schedule; the last micro-batch may send more than those before it."""
    if recipe.num_ranks == 1:
        return _Messages()
    reduce_s, gather_s, scatter_s = (
        partial(collective_seconds, name, cluster=cluster)
        for name in ("all-reduce", "all-gather", "reduce-scatter")
    )
    low, count = WEIGHT_BYTES.get(recipe.precision, 4), recipe.micro_batches
    if recipe.method == "ddp":
        return _Messages.of(overlapped(layers, reduce_s, 4, count))
    if recipe.method in ("zero1", "zero2"):
        step = _Messages.of(sharded_optimizer(layers, scatter_s, gather_s, low, low, count))
        if recipe.method == "zero1" or count == 1:
            return step
        return step.plus(_Messages.of(overlapped(layers, scatter_s, low), count - 1))
    build = two_buffers if recipe.method == "yafsdp" else fully_sharded
    message = low if recipe.method == "zero3" else 4
    last = _Messages.of(build(layers, gather_s, scatter_s, low, message))
    if count == 1:
        return last
    waits = recipe.method == "fsdp" and recipe.library == "torch"
    earlier_s = _nothing if waits else scatter_s
    return last.plus(_Messages.of(build(layers, gather_s, earlier_s, low, message), count - 1))


def _nothing(num_bytes: float) -> float:
    """Seconds of a message that is not sent."""
    return 0.0
