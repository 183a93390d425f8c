"""The ladder: one GPT, one change a rung; what each costs in bytes, seconds, dollars and loss.

How it works: `weigh` counts the bytes of each rung, which are the same on every processor; `climb`
also trains all rungs in turn, in one launch (`utils.experiments.ladder_ranks`), and times them.
Every rung sees the same tokens in the same order, and so a bigger batch makes fewer updates: tokens
are what is paid for, and the loss after the same tokens shows what a rung takes in return. The
learning rate stays. A core is a device here, so a rung on two ranks pays for two.

Left out: the recorded climb on a GPU (`utils.experiments.ladder_sweep`), tables and figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from utils.config import GPTConfig
from utils.corpus import Corpus, load_corpus
from utils.experiments.ladder_ranks import (
    MIN_ROUNDS,
    Batch,
    RankReport,
    Schedule,
    train_entries,
    weigh_entries,
)
from utils.experiments.ladder_results import RungResult, per_token, slowest_steps, step_flops
from utils.experiments.ladder_rungs import (
    CONFIG,
    RUNGS,
    Rung,
    changed_things,
    rungs_of,
    world_size_of,
)
from utils.peers.harness import SystemBytes
from utils.ranks import run_ranks
from utils.timing import Timing

__all__ = [
    "CONFIG",
    "RUNGS",
    "Rung",
    "RungResult",
    "changed_things",
    "climb",
    "per_token",
    "rungs_of",
    "weigh",
]

NUM_ROUNDS, BUDGET_S, TIMEOUT_S = 40, 20.0, 400.0
HELD_OUT_SEQUENCES = 32
NO_MEMORY = "memory ran out"


def weigh(
    rungs: Sequence[Rung] = RUNGS, config: GPTConfig = CONFIG, backend: str | None = "gloo"
) -> list[SystemBytes | None]:
    """Bytes of each rung on its fullest rank; None where memory ran out.

    "gloo" is the processor; None takes GPUs when there are enough for all ranks.
    """
    by_rank = _on_ranks(weigh_entries, rungs, config, backend)
    return [
        max(filter(None, sizes), key=lambda size: size.peak_bytes, default=None)
        for sizes in zip(*by_rank, strict=True)
    ]


def climb(
    config: GPTConfig = CONFIG,
    corpus: Corpus | None = None,
    rungs: Sequence[Rung] = RUNGS,
    num_rounds: int = NUM_ROUNDS,
    budget_s: float = BUDGET_S,
    backend: str | None = "gloo",
) -> list[RungResult]:
    """Weigh and train every rung: one round first, then `num_rounds` timed ones, fewer if late.

    Raises ValueError for fewer than 3 rounds, no rung, or rungs of two numbers of ranks above 1.
    """
    if num_rounds < MIN_ROUNDS:
        raise ValueError(f"Quartiles need at least {MIN_ROUNDS} rounds, not {num_rounds}.")
    sizes = weigh(rungs, config, backend)
    fitting = [rung for rung, size in zip(rungs, sizes, strict=True) if size]
    trained: dict[Rung, RungResult] = {}
    if fitting:
        schedule = schedule_of(fitting, config, corpus or load_corpus(), num_rounds, budget_s)
        reports = _on_ranks(train_entries, fitting, config, backend, schedule)
        found = results_of(fitting, config, reports, len(schedule.rounds[0][0]))
        trained = dict(zip(fitting, found, strict=True))
    return [
        replace(trained[rung], peak_bytes=size.peak_bytes, held=dict(size.held))
        if size else RungResult(rung, problem=NO_MEMORY)
        for rung, size in zip(rungs, sizes, strict=True)
    ]  # fmt: skip


def schedule_of(
    rungs: Sequence[Rung], config: GPTConfig, corpus: Corpus, num_rounds: int, budget_s: float
) -> Schedule:
    """As many sequences a round as the steps of every rung divide, the same text for all."""
    size = math.lcm(*(rung.recipe.sequences_per_step for rung in rungs))
    shape = size, config.context_length
    rounds: list[Batch] = [corpus.batch(number, *shape) for number in range(1 + num_rounds)]
    held_out = corpus.batch(0, HELD_OUT_SEQUENCES, config.context_length, "validation")
    return Schedule(rounds, held_out, budget_s=budget_s)


def results_of(
    rungs: Sequence[Rung], config: GPTConfig, reports: Sequence[RankReport], sequences: int
) -> list[RungResult]:
    """All ranks' reports put together, bytes left open; `sequences` are those of a round."""
    num_tokens = sequences * config.context_length * reports[0].num_rounds
    results = []
    for number, rung in enumerate(rungs):
        tokens = rung.recipe.sequences_per_step * config.context_length
        timing = Timing(tuple(each.total_s for each in slowest_steps(reports, number)))
        results.append(
            RungResult(
                rung, tokens, step_flops(rung.recipe, config) / tokens, timing=timing,
                num_tokens=num_tokens, loss=reports[0].losses[number],
            )
        )  # fmt: skip
    return results


def _on_ranks(
    worker: Callable[..., Any], rungs: Sequence[Rung], config: GPTConfig, backend: str | None,
    *more: Any,
) -> list[Any]:  # fmt: skip
    recipes = [rung.recipe for rung in rungs]
    return run_ranks(
        worker, world_size_of(recipes), [(recipe, config) for recipe in recipes], *more,
        timeout_s=TIMEOUT_S, backend=backend, quiet=True,
    )  # fmt: skip
