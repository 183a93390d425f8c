"""Trainings by recipe for the tests of `utils.trainer.systems`: one launch runs many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from utils.config import GPTConfig
from utils.peers.deepspeed_import import deepspeed_problem
from utils.peers.harness import (
    SystemRun,
    largest_gap,
    measure_system,
    one_process,
    train_system,
)
from utils.ranks import run_ranks
from utils.recipe import METHODS_OF, TrainingRecipe
from utils.trainer.systems import job_of, system_of

CONFIG = GPTConfig(3, 2, 32, 16, 64)
# Nothing divides by 2 or 4, query heads share keys, and two layers share a weight.
ODD = GPTConfig(3, 4, 36, 7, 37, ff_dim=71, num_kv_heads=2, tied_embeddings=True)
HAS_DEEPSPEED = deepspeed_problem() is None
WAYS = [
    (method, library)
    for library in ("torch", "ours", *("deepspeed",) * HAS_DEEPSPEED)
    for method in METHODS_OF[library]
]


@dataclass(frozen=True)
class Case:
    """One training: how, and of what."""

    recipe: TrainingRecipe
    config: GPTConfig = CONFIG

    def job(self):
        return job_of(self.recipe, self.config, num_steps=3, learning_rate=1e-2, max_norm=0.1)

    def again(self) -> Case:
        """The same with each block run again in backward."""
        return replace(self, recipe=replace(self.recipe, checkpointing="blocks"))


def recipe_of(method: str, library: str, num_ranks: int = 2, **choices) -> TrainingRecipe:
    """The recipe of a way on so many ranks, or on one for a single process; 2 sequences each."""
    ranks = 1 if method == "single" else num_ranks
    return TrainingRecipe(
        method=method, library=library, num_ranks=ranks, **{"batch_size": 2, **choices}
    )


def run_all(cases: Sequence[Case]) -> list[list[SystemRun]]:
    """Of each case every rank's run; cases on equally many ranks share a launch."""
    return _in_launches(_train, cases)


def measure_all(cases: Sequence[Case]) -> list[list]:
    """Of each case every rank's bytes."""
    return _in_launches(_measure, cases)


def gaps(case: Case, runs: Sequence[SystemRun]) -> tuple[float, float]:
    """The largest loss and parameter gap of any rank to one process in fp32."""
    oracle = _oracle(case.job().config, case.recipe.num_ranks, case.recipe.micro_batches)
    found = [largest_gap(run, oracle) for run in runs]
    return max(loss for loss, _ in found), max(parameter for _, parameter in found)


def same(left: Sequence[SystemRun], right: Sequence[SystemRun]) -> bool:
    """Whether two trainings agree in every bit, on every rank."""
    return all(
        a.losses == b.losses and all(map(torch.equal, a.parameters, b.parameters))
        for a, b in zip(left, right, strict=True)
    )


@cache
def _oracle(config: GPTConfig, num_ranks: int, micro_batches: int) -> SystemRun:
    recipe = TrainingRecipe(batch_size=2 * num_ranks * micro_batches)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as a rank has: with more, some sums would have another order
    try:
        job = replace(Case(recipe, config).job(), config=config)
        return one_process(job, num_ranks * micro_batches)
    finally:
        torch.set_num_threads(before)


def _in_launches(worker, cases: Sequence[Case]) -> list[list]:
    results: dict[int, list] = {}
    for launch in sorted(set(map(_launch_of, cases))):
        places = [i for i, case in enumerate(cases) if _launch_of(case) == launch]
        mine = [cases[i] for i in places]
        found = run_ranks(worker, launch[0], mine, quiet=True, timeout_s=180)
        results |= dict(zip(places, map(list, zip(*found, strict=True)), strict=True))
    return [results[place] for place in range(len(cases))]


def _launch_of(case: Case) -> tuple[int, bool]:
    """DeepSpeed's stage 3 replaces torch's own linear function, for whoever comes after it."""
    return case.recipe.num_ranks, case.recipe.library == "deepspeed"


def _train(rank: int, world_size: int, cases: list[Case]) -> list[SystemRun]:
    return [_one(train_system, rank, world_size, case) for case in cases]


def _measure(rank: int, world_size: int, cases: list[Case]) -> list:
    return [_one(measure_system, rank, world_size, case) for case in cases]


def _one(worker, rank: int, world_size: int, case: Case):
    torch.manual_seed(rank)  # dropout draws the same under every system
    return worker(rank, world_size, system_of(case.recipe), case.job())
