"""The cases that lab 10's predictions are judged by, and the mistakes behind wrong numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from utils.checks.truth_10_cloud import (
    FULL,
    LOW,
    Cloud,
    Job,
    flops_again,
    peak_bytes,
    sent_bytes,
    step_seconds,
    tokens_of,
    usd_of,
    useful_flops,
)
from utils.config import GPTConfig
from utils.costs import count_parameters, rule_of_thumb_flops
from utils.planning.recipe_bytes import recipe_bytes
from utils.predict_checkpoint import recomputed_flops
from utils.recipe import TrainingRecipe


class Case(NamedTuple):
    """What a prediction is asked of."""

    recipe: TrainingRecipe
    job: Job
    cloud: Cloud


Wrong = Callable[[TrainingRecipe, Job, Cloud], float]
CLOUD = Cloud("test cloud", 8_000_000, 2e9, 6e9, 2e7, 0.6, 4)
_SMALL = Job(GPTConfig(3, 2, 32, 48), 24, 50, 1.0)
_DEEP = Job(GPTConfig(6, 4, 64, 64), 24, 200, 1.0)
_WIDE = Job(GPTConfig(2, 4, 128, 32, ff_dim=256, num_kv_heads=2, bias=False), 24, 10, 1.0)


def _case(job: Job, *choices: str, size: int, micro: int = 1, ranks: int = 1) -> Case:
    library = "torch" if choices[2] in ("single", "ddp") else "ours"
    precision, again, method = choices
    recipe = TrainingRecipe(precision, "fused", again, method, library, size, micro, ranks)
    return Case(recipe, job, CLOUD)


CASES = (
    _case(_SMALL, "fp32", "none", "single", size=12, micro=2),
    _case(_SMALL, "fp32", "none", "ddp", size=4, micro=3, ranks=2),
    _case(_DEEP, "fp32", "blocks", "fsdp", size=8, ranks=3),
    _case(_DEEP, "bf16", "blocks", "fsdp", size=3, micro=2, ranks=4),
    _case(_DEEP, "bf16", "none", "zero3", size=2, micro=3, ranks=4),
    _case(_WIDE, "bf16", "none", "zero2", size=2, micro=4, ranks=3),
    _case(_WIDE, "bf16", "blocks", "ddp", size=6, micro=2, ranks=2),
)


def _with(formula: Callable[..., float], **change: object) -> Wrong:
    """The formula of a recipe with something overlooked."""
    return lambda r, job, cloud: formula(replace(r, **change), job)


def _alone(recipe: TrainingRecipe) -> TrainingRecipe:
    return replace(recipe, method="single", library="torch", num_ranks=1)


def _sent(change: Callable[[TrainingRecipe], TrainingRecipe] = lambda r: r, **how: object) -> Wrong:
    return lambda r, job, cloud: sent_bytes(change(r), job.config, **how)


def _as(method: str) -> Wrong:
    library = "torch" if method == "ddp" else "ours"

    def change(recipe: TrainingRecipe) -> TrainingRecipe:
        is_alone = recipe.method == "single"
        return recipe if is_alone else replace(recipe, method=method, library=library)

    return _sent(change)


def _usd(seconds: Callable[..., float]) -> Wrong:
    """From other seconds of one step: seconds(recipe, job, cloud, computing, sending)."""

    def usd(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> float:
        step_s = seconds(recipe, job, cloud, *step_seconds(recipe, job, cloud))
        return step_s * job.num_steps * recipe.num_ranks * cloud.usd_per_hour / 3600

    return usd


def _without_again(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> float:
    return usd_of(recipe, job, cloud) - _usd(
        lambda r, job, cloud, computing, sending: computing
    )(recipe, job, cloud) * flops_again(recipe, job) / (
        useful_flops(recipe, job) + flops_again(recipe, job)
    )  # fmt: skip


def _whole_second_run(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> float:
    config, again = job.config, recipe.checkpointing == "blocks"
    shape = recipe.sequences_per_step, config.context_length
    blocks = tuple((k,) for k in range(config.num_layers))
    return again * job.num_steps * recomputed_flops(config, *shape, blocks, early_stop=False)


def _thumb(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> float:
    return rule_of_thumb_flops(count_parameters(job.config).total, tokens_of(recipe, job))


PER_RANK = "this is one rank's share: the run's tokens and FLOPs are those of all ranks"
ONE_STEP = "this is one step: the run has num_steps of them"
ONE_MICRO = "a step has several micro-batches"
JOB_NOT_RANK = "this is the whole job: a rank's bytes are asked for"
BF16 = "bf16 does not halve everything: read which bytes stay fp32 with this method"


def _scaled(formula: Callable[..., float], text_rank: str = PER_RANK) -> list[tuple[str, Wrong]]:
    return [
        (text_rank, lambda r, job, c: formula(r, job) / r.num_ranks),
        (ONE_STEP, lambda r, job, c: formula(r, job) / job.num_steps),
        (ONE_MICRO, lambda r, job, c: formula(r, job) / r.micro_batches),
    ]


MISTAKES: dict[str, list[tuple[str, Wrong]]] = {
    "peak_bytes": [
        (JOB_NOT_RANK, lambda r, job, c: peak_bytes(r, job) * r.num_ranks),
        ("activations are missing: this is what a rank holds after backward",
         lambda r, job, c: recipe_bytes(r, job.config).held.total),
        ("shards are forgotten: this is a process that holds the whole model",
         lambda r, job, c: peak_bytes(_alone(r), job)),
        ("micro-batches come one after the other: only one is in memory",
         lambda r, job, c: peak_bytes(
             replace(r, batch_size=r.batch_size * r.micro_batches, micro_batches=1), job)),
        ("this is the peak without checkpointing", _with(peak_bytes, checkpointing="none")),
        (BF16, lambda r, job, c: peak_bytes(replace(r, precision="fp32"), job) / 2),
        ("the precision is forgotten: this is fp32", _with(peak_bytes, precision="fp32")),
    ],
    "sent_bytes_per_step": [
        (JOB_NOT_RANK, lambda r, job, c: sent_bytes(r, job.config) * r.num_ranks),
        ("a rank's own part stays at home: a pass sends (N - 1)/N",
         lambda r, job, c: sent_bytes(r, job.config) * r.num_ranks / max(1, r.num_ranks - 1)),
        ("micro-batches are forgotten: what a rank does not keep travels in each of them",
         _sent(lambda r: replace(r, micro_batches=1))),
        ("what is not in a block stays whole from forward to backward: it is gathered once",
         _sent(root_gathers=2)),
        ("two passes are DDP's: who gathers weights for forward and for backward has three",
         _as("ddp")),
        ("three passes are those of gathered weights: DDP and ZeRO-2 have two", _as("zero3")),
        (BF16, lambda r, job, c: sent_bytes(
            r, job.config, sizes=(LOW, LOW) if r.precision == "bf16" else None)),
        ("bf16 weights travel in 2 bytes a value", _sent(sizes=(FULL, FULL))),
        ("the whole run: one step is asked for",
         lambda r, job, c: sent_bytes(r, job.config) * job.num_steps),
    ],
    "tokens": _scaled(tokens_of),
    "flops": [
        ("FLOPs done again are not useful: MFU counts each once, and so does this",
         lambda r, job, c: useful_flops(r, job) + flops_again(r, job)),
        ("6ND is a rule of thumb: attention's products are missing, and embeddings multiply "
         "nothing", _thumb),
        *_scaled(useful_flops),
        ("this is forward alone", lambda r, job, c: useful_flops(r, job) / 3),
    ],
    "recomputed_flops": [
        ("checkpointing runs blocks again: these FLOPs are not 0", lambda r, job, c: 0.0),
        ("a block's second run ends before its last product, which nobody needs again",
         _whole_second_run),
        ("a third more is the rule of thumb: the output layer is not run again",
         lambda r, job, c: useful_flops(r, job) / 3 * (r.checkpointing == "blocks")),
        ("without checkpointing nothing is run again",
         lambda r, job, c: flops_again(replace(r, checkpointing="blocks"), job)),
        *_scaled(flops_again),
    ],
    "usd": [
        ("these are the dollars of one rank only",
         lambda r, job, c: usd_of(r, job, c) / r.num_ranks),
        ("FLOPs done again are paid for, too", _without_again),
        ("messages are paid for, too", _usd(lambda r, job, c, computing, sending: computing)),
        ("ranks share the FLOPs: each does an N-th",
         _usd(lambda r, job, c, computing, sending: computing * r.num_ranks + sending)),
        ("devices compute first and send then: the two add up", _usd(lambda r, j, c, *s: max(s))),
        ("all ranks send at the same time: the seconds of one count",
         _usd(lambda r, job, c, computing, sending: computing + sending * r.num_ranks)),
        ("bf16 has a rate of its own",
         _usd(lambda r, job, c, computing, sending:
              computing * c.flops_per_s(r.precision) / c.fp32_flops_per_s + sending)),
        ("this is one step: the run has num_steps of them",
         lambda r, job, c: usd_of(r, job, c) / job.num_steps),
        ("the price is for an hour, not for a second", lambda r, job, c: 3600 * usd_of(r, job, c)),
    ],
}  # fmt: skip
