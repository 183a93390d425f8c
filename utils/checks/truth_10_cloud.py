"""Lab 10's imaginary cloud of small devices, a job, and the bill of a recipe there.

How it works: a step computes first and sends then, so that its seconds are FLOPs over the rate of
all ranks plus bytes over the link of one. Everything follows from formulas, and so a bill is the
same on every machine. `sent_bytes` is what the course's systems send, but for the eight bytes of
clipping and the padding of shards: a pass of a ring sends (N - 1)/N of what it sums or hands out.

Left out: overlap, latency, torch's FSDP2 on gloo (its reduce-scatter sends twice the textbook's).
"""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import GPTConfig
from utils.costs import count_parameters, training_flops
from utils.planning.recipe_bytes import recipe_bytes
from utils.predict_checkpoint import recomputed_flops
from utils.recipe import WHOLE_WEIGHTS, TrainingRecipe

KEYS = ("peak_bytes", "sent_bytes_per_step", "tokens", "flops", "recomputed_flops", "usd")
FULL, LOW = 4, 2  # bytes of a value in fp32 and in bf16


@dataclass(frozen=True)
class Cloud:
    """Equal devices, rented by the hour; one rank has one of them."""

    name: str
    memory_bytes: int  # of one device
    fp32_flops_per_s: float  # of one device, as reached
    bf16_flops_per_s: float  # 0 for devices that have no bf16
    link_bytes_per_s: float  # what one device sends
    usd_per_hour: float  # of one device
    max_devices: int

    def flops_per_s(self, precision: str) -> float:
        """The rate of one device; 0 for what it cannot do."""
        rates = {"fp32": self.fp32_flops_per_s, "bf16": self.bf16_flops_per_s}
        return rates.get(precision, 0.0)


@dataclass(frozen=True)
class Job:
    """What is to be trained, for how long, and what it may cost."""

    config: GPTConfig
    sequences_per_step: int  # of all ranks and micro-batches together
    num_steps: int
    budget_usd: float


def tokens_of(recipe: TrainingRecipe, job: Job) -> int:
    """In the whole run."""
    return recipe.sequences_per_step * job.config.context_length * job.num_steps


def useful_flops(recipe: TrainingRecipe, job: Job) -> int:
    """Of the whole run, nothing counted twice."""
    shape = recipe.sequences_per_step, job.config.context_length
    return training_flops(job.config, *shape) * job.num_steps


def flops_again(recipe: TrainingRecipe, job: Job) -> int:
    """Of the whole run, done a second time by checkpointing."""
    if recipe.checkpointing == "none":
        return 0
    shape = recipe.sequences_per_step, job.config.context_length
    blocks = tuple((k,) for k in range(job.config.num_layers))
    return recomputed_flops(job.config, *shape, blocks) * job.num_steps


def value_bytes(recipe: TrainingRecipe) -> tuple[int, int]:
    """Of a weight and of a gradient on their way: autocast sends fp32, FSDP sums in fp32."""
    if recipe.precision == "fp32" or recipe.method in WHOLE_WEIGHTS:
        return FULL, FULL
    return LOW, FULL if recipe.method == "fsdp" else LOW


def sent_bytes(
    recipe: TrainingRecipe, config: GPTConfig, root_gathers: int = 1,
    sizes: tuple[int, int] | None = None,
) -> float:  # fmt: skip
    """By one rank in a step; `sizes` replaces the bytes of a weight and a gradient."""
    count = count_parameters(config)
    all_values, ranks, micro = count.total, recipe.num_ranks, recipe.micro_batches
    blocks = config.num_layers * count.block
    weight, gradient = sizes or value_bytes(recipe)
    rooted = root_gathers * (all_values - blocks)
    in_models = {
        "single": 0,
        "ddp": 2 * gradient * all_values,
        "zero2": (weight + micro * gradient) * all_values,
        "zero3": micro * (2 * weight + gradient) * all_values,
        "fsdp": micro * (weight * (2 * blocks + rooted) + gradient * all_values),
    }[recipe.method]
    return in_models * (ranks - 1) / ranks


def step_seconds(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> tuple[float, float]:
    """(computing, sending) in one step."""
    flops = (useful_flops(recipe, job) + flops_again(recipe, job)) / job.num_steps
    rate = recipe.num_ranks * cloud.flops_per_s(recipe.precision)
    return flops / rate, sent_bytes(recipe, job.config) / cloud.link_bytes_per_s


def usd_of(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> float:
    """All devices are paid for while any of them works."""
    seconds = job.num_steps * sum(step_seconds(recipe, job, cloud))
    return seconds * recipe.num_ranks * cloud.usd_per_hour / 3600


def peak_bytes(recipe: TrainingRecipe, job: Job) -> int:
    """Of one rank."""
    return recipe_bytes(recipe, job.config).peak.total


def right(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> dict[str, float]:
    """The whole prediction."""
    values = (
        peak_bytes(recipe, job), sent_bytes(recipe, job.config), tokens_of(recipe, job),
        useful_flops(recipe, job), flops_again(recipe, job), usd_of(recipe, job, cloud),
    )  # fmt: skip
    return dict(zip(KEYS, values, strict=True))


def candidates(
    sequences_per_step: int, max_ranks: int = 4, precisions: tuple[str, ...] = ("fp32", "bf16")
) -> list[TrainingRecipe]:
    """Recipes of the course's systems and torch's DDP, all ways to cut a step's sequences."""
    found = []
    for precision in precisions:
        for again in ("none", "blocks"):
            for method in ("single", "ddp", "zero2", "zero3", "fsdp"):
                library = "torch" if method in WHOLE_WEIGHTS else "ours"
                ranks = [1] if method == "single" else range(2, max_ranks + 1)
                found += [
                    TrainingRecipe(precision, "fused", again, method, library, size, micro, count)
                    for count in ranks
                    for size, micro in _cuts(sequences_per_step, count)
                ]
    return found


def _cuts(sequences: int, num_ranks: int) -> list[tuple[int, int]]:
    """(batch size, micro-batches) of a rank; the step's sequences must spread evenly."""
    if sequences % num_ranks:
        return []
    mine = sequences // num_ranks
    return [(size, mine // size) for size in range(mine, 0, -1) if mine % size == 0]
