"""Which mistake leads to which factors between two bills (lab 10).

How it works: most mistakes are other totals of a job, from the same logs that the learner has; the
rest are other quotients, or another arithmetic with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from utils.checks.truth_10_explain import FACTORS, Case, Totals, factors_between, logs_of, totals_of
from utils.trainer.log import TrainingLog

Logs = Sequence[TrainingLog]
Factors = dict[str, float]
Mistake = Callable[[Case], Factors]


def _of_totals(totals: Callable[[Logs, Totals], Totals]) -> Mistake:
    """Other totals of both jobs, from their logs and the right ones."""

    def factors(case: Case) -> Factors:
        pair = (totals(logs_of(each), totals_of(each)) for each in (case.planned, case.paid))
        return factors_between(*pair)

    return factors


def _last_only(logs: Logs, right: Totals) -> Totals:
    """The last log as if it were the whole story."""
    last, start = logs[-1].steps[-1], logs[-1].start
    step = last["step"]
    useful = start["flops_per_step"] * step
    return Totals(
        last["tokens"], last["tokens"], useful, useful + start["recomputed_flops_per_step"] * step,
        last["seconds"], last["seconds"] * start["recipe"]["num_ranks"], last["usd"],
    )  # fmt: skip


def _usd_added(logs: Logs, right: Totals) -> Totals:
    return right._replace(usd=sum(log.steps[-1]["usd"] for log in logs))


def _seconds_added(logs: Logs, right: Totals) -> Totals:
    seconds = [log.steps[-1]["seconds"] for log in logs]
    ranks = [log.start["recipe"]["num_ranks"] for log in logs]
    by_rank = sum(s * n for s, n in zip(seconds, ranks, strict=True))
    return right._replace(seconds=sum(seconds), rank_seconds=by_rank)


def _all_added(logs: Logs, right: Totals) -> Totals:
    """Each log's last line, all of them added: kept steps count in every log."""
    single = [_last_only([log], right) for log in logs]
    sums = Totals(*(sum(column) for column in zip(*single, strict=True)))
    return sums._replace(kept_tokens=right.kept_tokens)


def _ranks_of_last(logs: Logs, right: Totals) -> Totals:
    ranks = logs[-1].start["recipe"]["num_ranks"]
    return right._replace(rank_seconds=right.seconds * ranks)


def _price_of_last(logs: Logs, right: Totals) -> Totals:
    usd = right.rank_seconds * logs[-1].start["usd_per_gpu_hour"] / 3600
    return right._replace(usd=usd)


def _all_kept(logs: Logs, right: Totals) -> Totals:
    return right._replace(kept_tokens=right.tokens)


def _nothing_again(logs: Logs, right: Totals) -> Totals:
    return right._replace(done_flops=right.useful_flops)


def _again_in_both(logs: Logs, right: Totals) -> Totals:
    return right._replace(useful_flops=right.done_flops)


def _changed(change: Callable[[Case, Factors], Factors]) -> Mistake:
    return lambda case: case.right | change(case, case.right)


def _each(change: Callable[[float], float]) -> Mistake:
    return lambda case: {name: change(value) for name, value in case.right.items()}


def _differences(case: Case) -> Factors:
    pair = (totals_of(each).quotients() for each in (case.planned, case.paid))
    return {name: b - a for name, a, b in zip(FACTORS, *pair, strict=True)}


def _lost(case: Case, right: Factors) -> Factors:
    """The share that was lost, in place of a factor."""
    return {"repeated": 1 - 1 / right["repeated"]}


ONLY_LAST = (
    "the last log alone: a resumed run's \"so far\" knows nothing of the steps that were lost, "
    "and they were paid for"
)
MISTAKES: tuple[tuple[str, Mistake], ...] = (
    (ONLY_LAST, _of_totals(_last_only)),
    ('"so far" contains what was kept of earlier starts: added up, it counts twice',
     _of_totals(_all_added)),
    ('dollars "so far" contain those of earlier starts: take the difference',
     _of_totals(_usd_added)),
    ('seconds "so far" contain those of earlier starts: take the difference',
     _of_totals(_seconds_added)),
    ("the number of ranks may change at a new start: weigh it with seconds",
     _of_totals(_ranks_of_last)),
    ("the price may change at a new start: dollars over rank-seconds of all of them",
     _of_totals(_price_of_last)),
    ("repeated steps bring no new tokens: only the kept ones are progress", _of_totals(_all_kept)),
    ("FLOPs done again are FLOPs done: they belong into recomputation", _of_totals(_nothing_again)),
    ("FLOPs done again are not the model's: they belong into recomputation",
     _of_totals(_again_in_both)),
    ("the price counts twice: seconds for each FLOP, not dollars",
     _changed(lambda case, f: {"seconds": f["seconds"] * f["price"]})),
    ("the ranks count twice: seconds for each FLOP, not rank-seconds",
     _changed(lambda case, f: {"seconds": f["seconds"] * f["ranks"]})),
    ("recomputation counts twice: seconds for each FLOP done, not for each useful one",
     _changed(lambda case, f: {"seconds": f["seconds"] * f["recomputation"]})),
    ("upside down: seconds for each FLOP, so slower is above 1",
     _changed(lambda case, f: {"seconds": 1 / f["seconds"]})),
    ("repeated steps are left out: tokens computed for each token kept",
     _changed(lambda case, f: {"repeated": 1.0})),
    ("a factor, not a share: tokens computed for each token kept", _changed(_lost)),
    ("planned over paid: the other way round", _each(lambda value: 1 / value)),
    ("differences do not multiply: return quotients", _differences),
    ("factors, not percent", _each(lambda value: 100 * (value - 1))),
    ("logarithms add up, factors multiply", _each(math.log)),
)  # fmt: skip
