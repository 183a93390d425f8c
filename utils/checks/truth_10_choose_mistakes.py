"""Which mistake leads to which choice of a recipe in lab 10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from utils.checks.truth_10_choose import Number, Way, known_rate, nothing
from utils.checks.truth_10_cloud import (
    Cloud,
    Job,
    flops_again,
    peak_bytes,
    sent_bytes,
    step_seconds,
    usd_of,
    useful_flops,
)
from utils.planning.recipe_bytes import recipe_bytes
from utils.recipe import TrainingRecipe


def _seconds(change: Callable[[TrainingRecipe, Job, float, float], float]) -> Number:
    """Dollars from other seconds of a step."""

    def number(r: TrainingRecipe, job: Job, cloud: Cloud) -> float:
        if not known_rate(r, job, cloud):
            return float("inf")
        return change(r, job, *step_seconds(r, job, cloud)) * r.num_ranks

    return number


def _once(r: TrainingRecipe, job: Job, computing: float, sending: float) -> float:
    flops, again = useful_flops(r, job), flops_again(r, job)
    return computing * flops / (flops + again) + sending


def _alone(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    """As if each rank held the whole model."""
    alone = replace(r, method="single", library="torch", num_ranks=1)
    return peak_bytes(alone, job) <= cloud.memory_bytes


def _held(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    return recipe_bytes(r, job.config).held.total <= cloud.memory_bytes


def _always(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    return True


def _rank_batch(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    return r.batch_size * r.num_ranks == job.sequences_per_step


def _any_budget(r: TrainingRecipe, job: Job, cloud: Cloud) -> bool:
    return usd_of(r, job, cloud) <= job.budget_usd * r.num_ranks


def _free_messages(r: TrainingRecipe, job: Job, computing: float, sending: float) -> float:
    return computing


def _one_micro(r: TrainingRecipe, job: Job, cloud: Cloud) -> float:
    once = sent_bytes(replace(r, micro_batches=1), job.config)
    sent = sent_bytes(r, job.config)
    computing, sending = step_seconds(r, job, cloud)
    return (computing + sending * (once / sent if sent else 1)) * r.num_ranks


PRICE = ("budget", _always)
MISTAKES: tuple[tuple[str, Way], ...] = (
    ("activations are ignored: what a rank holds fits, its peak does not",
     Way(rules=(("memory", _held),))),
    ("the memory of a device is ignored", Way(rules=(("memory", _always),))),
    ("a device holds its shards only: neither the whole model nor all shards need fit into it",
     Way(rules=(("memory", _alone),))),
    ("the budget is ignored: None is the answer when nothing is within it", Way(rules=(PRICE,))),
    ("a rank's dollars are held against the budget: all devices are paid for",
     Way(rules=(("budget", _any_budget),))),
    ("a step has other sequences than the job wants", Way(rules=(("batch", _always),))),
    ("micro-batches belong to the step's sequences, too", Way(rules=(("batch", _rank_batch),))),
    ("so many devices are not to be had", Way(rules=(("devices", _always),))),
    ("these devices have no bf16: their rate is 0",
     Way(number=lambda r, job, cloud: usd_of(r, job, replace(
         cloud, bf16_flops_per_s=cloud.bf16_flops_per_s or 3 * cloud.fp32_flops_per_s)),
         rules=(("precision", _always), PRICE))),
    ("checkpointing is not free: FLOPs done again are paid for", Way(_seconds(_once))),
    ("the number of ranks is missing in the price: this one is the fastest, not the cheapest",
     Way(lambda r, job, cloud: sum(step_seconds(r, job, cloud)))),
    ("messages take time, too", Way(_seconds(_free_messages))),
    ("messages of each micro-batch are forgotten", Way(_one_micro)),
    ("the fewest bytes are not asked for: memory that is there costs nothing more",
     Way(lambda r, job, cloud: peak_bytes(r, job))),
    ("the fewest devices are not always the cheapest",
     Way(lambda r, job, cloud: r.num_ranks)),
    ("this is the first recipe that will do, not the cheapest", Way(nothing)),
    ("this is the dearest", Way(lambda r, job, cloud: -usd_of(r, job, cloud))),
)  # fmt: skip
