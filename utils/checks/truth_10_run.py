"""Lab 10's job: a model, a cloud, a budget, a target; and the same training once more.

How it works: a run's log is believed only as far as it can be repeated. `repeat` trains by the
log's settings in one process, which is the oracle of every recipe in fp32: losses, step by step,
and the validation loss. `bill_of` is the run's price on the cloud, from the log's own numbers.

Left out: seconds. They are in the log, and nothing here passes or fails by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utils.checks.truth_10_cloud import KEYS, Cloud, Job, candidates
from utils.config import GPTConfig
from utils.corpus import Corpus, load_corpus
from utils.model import build_gpt, next_token_loss
from utils.recipe import TrainingRecipe
from utils.timing import one_thread
from utils.trainer.log import TrainingLog
from utils.trainer.settings import RunSettings
from utils.trainer.state import optimizer_of
from utils.trainer.systems import job_of, system_of
from utils.trainer.validate import NUM_WINDOWS

CLOUD = Cloud("two small devices", 4_200_000, 2e9, 0.0, 2e7, 0.6, 2)
JOB = Job(GPTConfig(num_layers=4, num_heads=4, model_dim=64, context_length=64), 16, 40, 0.008)
RECIPES = tuple(candidates(JOB.sequences_per_step, CLOUD.max_devices, ("fp32",)))
TARGET_LOSS = 3.6  # nats a byte on text that training never sees; 5.5 is a guess among 256
SHAPING = ("steps", "learning_rate", "warmup_steps", "weight_decay", "max_gradient_norm", "seed")


class Repeated(NamedTuple):
    """What one process finds by the same settings."""

    losses: tuple[float, ...]
    validation_loss: float


@cache
def course_text() -> tuple[Corpus, str]:
    """The text that the trainer takes without --text, and its checksum."""
    corpus = load_corpus()
    whole_N = torch.cat([corpus.train_N, corpus.validation_N])
    return corpus, hashlib.sha256(whole_N.numpy()).hexdigest()


def recipe_of(log: TrainingLog) -> TrainingRecipe:
    """The recipe that the log names."""
    return TrainingRecipe(**log.start["recipe"])


def repeat(log: TrainingLog) -> Repeated:
    """Train again by the log's settings, in one process and on one thread, in fp32."""
    recipe, settings = recipe_of(log), log.start["settings"]
    shaping = tuple((name, settings[name]) for name in SHAPING)
    return _repeat(recipe.sequences_per_step, shaping)


@cache
@one_thread()
def _repeat(sequences: int, shaping: tuple[tuple[str, Any], ...]) -> Repeated:
    recipe, corpus = TrainingRecipe(batch_size=sequences), course_text()[0]
    run = RunSettings(Path(), recipe, JOB.config, **dict(shaping))
    job = job_of(
        recipe, JOB.config, learning_rate=run.learning_rate, seed=run.seed,
        max_norm=run.max_gradient_norm,
    )  # fmt: skip
    model = build_gpt(JOB.config, seed=run.seed)
    system, losses = system_of(recipe)(model, 0, 1, job), []
    for number in range(run.steps):
        for group in optimizer_of(system).param_groups:
            group["lr"] = run.schedule.rate_at(number, number / run.steps)
            group["weight_decay"] = run.weight_decay
        shape = sequences, JOB.config.context_length
        batch = corpus.batch(number, *shape, seed=run.seed)
        losses.append(float(system.backward(*batch, is_last=True)))
        system.step()
    return Repeated(tuple(losses), _validation_loss(model, corpus))


@torch.no_grad()
def _validation_loss(model: torch.nn.Module, corpus: Corpus) -> float:
    windows: tuple[Tensor, Tensor] = corpus.batch(
        0, NUM_WINDOWS, JOB.config.context_length, "validation"
    )
    return float(next_token_loss(model, *windows))


def bill_of(log: TrainingLog, cloud: Cloud) -> dict[str, float]:
    """What the run took, by its log alone, and what it would have cost on the cloud."""
    start, ranks, num_steps = log.start, log.end["ranks"], len(log.steps)
    useful, again = start["flops_per_step"], start["recomputed_flops_per_step"]
    sent = max(each["sent_bytes_per_step"] for each in ranks)
    step_s = (useful + again) / (len(ranks) * cloud.flops_per_s(start["recipe"]["precision"]))
    step_s += sent / cloud.link_bytes_per_s
    usd = num_steps * step_s * len(ranks) * cloud.usd_per_hour / 3600
    peak = max(each["peak_bytes"] for each in ranks)
    tokens = log.steps[-1]["tokens"]
    values = peak, sent, tokens, useful * num_steps, again * num_steps, usd
    return dict(zip(KEYS, values, strict=True))


def same_model(config: Mapping[str, Any]) -> bool:
    """Whether a log's config is the job's; attention belongs to the recipe."""
    return {**config, "attention": JOB.config.attention} == asdict(JOB.config)
