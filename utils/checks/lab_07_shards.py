"""Judge of lab 07, Adam in shards: the shard, its gradients, all weights, bytes sent and held."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_07_shards import (
    CASES,
    NUM_STEPS,
    Case,
    Run,
    allowed_bytes,
    flat,
    shards_trial,
    truth_P,
)
from utils.checks.truth_07_shards_mistakes import gradient_mistake, shard_mistake, weight_mistake

WORLD_SIZES = (4, 3)
LIKELY_STUCK = "every rank calls ring_all_gather once in each step, with shards of equal size"


@exercise(
    "07.2",
    "Adam in shards",
    hints=[
        "Two things are made once: this rank's slice of all weights, flat and padded, and its "
        "optimizer. Three things happen in each step: the slice gets its gradient, the optimizer "
        "steps, all slices are gathered. What may not stay alive in between?",
        "S = -(-P // N); flat_P = torch.zeros(N * S), filled from torch.cat of the flattened "
        "weights; shard_S = flat_P[rank * S : (rank + 1) * S].clone(), since a view keeps flat_P "
        "alive. step: shard_S.grad = the same of the gradients; optimizer.step(); ring_all_gather "
        "into a new flat_P; weight.data.copy_(part.view_as(weight)) for each part of flat_P.split.",
    ],
    seconds=200,
    lab="lab_07_zero",
)
def judge_shards(answer: Callable) -> str:
    """Shard, gradients, weights, traffic and memory of each case, on 4 and 3 ranks."""
    require_function(answer)
    for num_ranks in WORLD_SIZES:
        by_rank = on_ranks(shards_trial, num_ranks, answer, likely=LIKELY_STUCK)
        for case, runs in zip(CASES, zip(*by_rank, strict=True), strict=True):
            where = f"On {num_ranks} ranks, {case.name}"
            for rank, run in enumerate(runs):
                _require_shard(f"{where}: rank {rank}", case, rank, runs)
                _require_gradients(f"{where}: rank {rank}", case, rank, num_ranks, run)
            for rank, run in enumerate(runs):
                _require_weights(f"{where}: rank {rank}", case, rank, num_ranks, run)
            _require_traffic(where, case, runs)
            _require_memory(where, case, runs)
    return (
        f"{NUM_STEPS} steps of each model equal Adam in one process. On {num_ranks} ranks each "
        f"keeps 1/{num_ranks} of Adam's state and sends (N - 1)/N of the weights."
    )


def _slice(values: Tensor, case: Case, rank: int, num_ranks: int) -> Tensor:
    """What a rank's shard holds of all values, without padding."""
    size = case.shard_values(num_ranks)
    return values[rank * size : (rank + 1) * size]


def _fits(got: Tensor, true: Tensor, num_shard: int) -> bool:
    """Equal, with or without zeros of padding."""
    with_zeros = torch.cat([true, torch.zeros(num_shard - len(true))])
    return any(got.shape == each.shape and torch.allclose(got, each, rtol=1e-5, atol=1e-7)
               for each in (true, with_zeros))  # fmt: skip


def _require_shard(where: str, case: Case, rank: int, runs: Sequence[Run]) -> None:
    run, num_ranks = runs[rank], len(runs)
    likely = "Adam's moments are lost: make the optimizer once, outside of step"
    require(not run.num_late, f"{where}: step makes an optimizer anew", likely=likely)
    true = _slice(flat(case.tensors(seed=0)), case, rank, num_ranks)
    if not run.given and len(true) == 0:
        return  # only padding: an optimizer is not necessary
    require(run.given, f"{where}: make_optimizer is never called")
    given = torch.cat(run.given)
    if _fits(given, true, case.shard_values(num_ranks)):
        return
    likely = shard_mistake(case, rank, given, num_ranks)
    if given.numel() not in (len(true), case.shard_values(num_ranks)):
        what = f"{where}: the optimizer gets a wrong number of values"
        raise NotYet(what, case.shard_values(num_ranks), given.numel(), likely)
    raise NotYet(f"{where}: the optimizer gets other values than its shard", true, given, likely)


def _require_gradients(where: str, case: Case, rank: int, num_ranks: int, run: Run) -> None:
    num_shard, num_updates = case.shard_values(num_ranks), len(run.gradients)
    if not run.given:
        return
    what = f"{where}: the optimizer makes another number of updates than steps"
    likely = "call optimizer.step() once in each step"
    require(num_updates == NUM_STEPS, what, NUM_STEPS, num_updates, likely)
    for step in range(NUM_STEPS):
        got = run.gradients[step]
        likely = "set shard_S.grad before optimizer.step(): the optimizer's tensor has its own"
        what = f"{where}: the shard has no gradient in step {step + 1}"
        require(got is not None, what, likely=likely)
        true = _slice(flat(case.gradients(step)), case, rank, num_ranks)
        if not _fits(got, true, num_shard):
            likely = gradient_mistake(case, step, rank, num_ranks, got)
            raise NotYet(f"{where}: the shard's gradient is wrong in step {step + 1}",
                         true, got, likely)  # fmt: skip


def _require_weights(where: str, case: Case, rank: int, num_ranks: int, run: Run) -> None:
    for number, got in enumerate(run.weights, start=1):
        true = truth_P(case, number)
        wrong = ~torch.isclose(got, true, rtol=1e-4, atol=1e-6)
        if wrong.any():
            likely = weight_mistake(case, number, rank, num_ranks, got)
            what = f"{where} has {int(wrong.sum())} of {len(true)} values wrong after step {number}"
            place = int(wrong.nonzero()[0])
            raise NotYet(what, true[place].item(), got[place].item(), likely)


def _require_traffic(where: str, case: Case, runs: Sequence[Run]) -> None:
    num_ranks = len(runs)
    enough = (num_ranks - 1) * num_ranks * case.shard_values(num_ranks) * 4
    sent = sum(run.bytes_sent for run in runs)
    if sent <= enough:
        return
    calls, likely = set(runs[0].calls), "gather once in each step: one shard from each rank"
    if "all_reduce" in calls:
        likely = "an all-reduce of weights sends each value twice: a gather is enough"
    elif sent == 2 * enough:
        likely = "the shards are gathered twice: gradients are on every rank already"
    what = f"{where}: right, but all ranks together send too many bytes in a step"
    raise NotYet(what, enough, sent, likely)


def _require_memory(where: str, case: Case, runs: Sequence[Run]) -> None:
    allowed = allowed_bytes(case, len(runs))
    for rank, run in enumerate(runs):
        if run.kept_bytes > allowed:
            what = (
                f"{where}: right, but rank {rank} keeps {run.kept_bytes:,} bytes besides weights "
                "and gradients"
            )
            likely = (
                "a slice is a view, and a view keeps the whole flat tensor alive: clone the shard "
                "and its gradient, and let nothing else refer to a flat tensor"
            )
            raise NotYet(what, f"at most {allowed:,}", f"{run.kept_bytes:,}", likely)
