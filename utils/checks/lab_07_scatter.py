"""Judge of lab 07, gradients that leave: messages and their moment, shards, bytes that stay."""

from collections.abc import Callable, Sequence

import torch

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.late_link import Log
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_07_scatter import (
    EASY_STEPS,
    END,
    FINISHED,
    HARD_STEPS,
    ORDER_STEPS,
    SENT,
    Paths,
    ScatterRun,
    Step,
    scatter_trial,
    trained,
)
from utils.checks.truth_07_scatter_memory import LAYER_BYTES, NUM_LAYERS, explanations

RUNS = ((2, EASY_STEPS), (2, ORDER_STEPS), (3, HARD_STEPS))
LIKELY_STUCK = "only scatter sends, once for each trained parameter, in one order on all ranks"


@exercise(
    "07.3",
    "gradients that leave",
    hints=[
        "The order is fixed: the list of trained parameters, backwards. A hook notes that its "
        "parameter is finished. Which of the list may leave then? Which are left when backward is "
        "over, and what do ranks send that have no gradient?",
        "Keep a list of (parameter, shard), last one first, and a set. Hook: add to the set; while "
        "the list's first is in the set, take it off: flat_P = torch.zeros(world_size * S), filled "
        "with grad.flatten() / world_size; parameter.grad = None; scatter(mean_S, flat_P); "
        "shard += mean_S. finish(): do so for all that is left, with zeros; begin anew.",
    ],
    seconds=200,
    lab="lab_07_zero",
)
def judge_scatter(answer: Callable) -> str:
    """Steps of each kind, each against one process; then what a backward leaves in memory."""
    require_function(answer)
    for num_ranks, steps in RUNS:
        runs = on_ranks(scatter_trial, num_ranks, answer, steps, likely=LIKELY_STUCK)
        for number, step in enumerate(steps):
            for rank, run in enumerate(runs):
                where = f"On {num_ranks} ranks, step {number + 1} ({step.name}), rank {rank}"
                _require_messages(where, run, number)
                _require_shards(where, step, run, number, rank, num_ranks)
                for log in run.steps[number].logs:
                    _require_early(where, log)
        for rank, run in enumerate(runs):
            _require_rest(f"On {num_ranks} ranks, rank {rank}", run)
    early = _before(runs[0].steps[-1].logs[0], END)
    return (
        f"All {sum(len(steps) for _, steps in RUNS)} steps equal one process; {len(early)} of "
        f"{len(_order())} gradients leave before backward has ended, and only shards stay."
    )


def _order() -> list[str]:
    return list(trained(Paths()))[::-1]


def _require_messages(where: str, run: ScatterRun, number: int) -> None:
    likely = "" if number == 0 else "finish() must make all ready for the next backward"
    for log in run.steps[number].logs:
        sent, order = log.names(SENT), _order()
        others = ", ".join(run.own_calls)
        if "all_reduce" in run.own_calls:
            likely = (
                "an all-reduce sends twice the bytes, and leaves on every rank what only one "
                "needs: scatter is all that sends"
            )
        require(sent, f"{where}: nothing was sent by scatter", likely=likely)
        twice = [name for name in order if sent.count(name) > 1]
        likely = likely or "a hook for each parameter, registered once, and once in the list"
        if twice:
            what = f"{where}: {twice[0]} was sent {sent.count(twice[0])} times"
            raise NotYet(what, likely=likely)
        missing = ", ".join(name for name in order if name not in sent)
        likely = "what a batch does not use counts as zero and is sent all the same"
        require(not missing, f"{where}: {missing} was not sent", likely=likely)
        likely = "an all-reduce sends twice the bytes" if "all_reduce" in others else (
            "scatter is all that sends"
        )
        require(not others, f"{where}: called {others} besides scatter", likely=likely)


def _require_shards(
    where: str, step: Step, run: ScatterRun, number: int, rank: int, num_ranks: int
) -> None:
    for name, got in run.steps[number].shards.items():
        true, mistakes = explanations(step, name, rank, num_ranks)
        if _equal(got, true):
            continue
        likely = next((text for text, value in mistakes if _equal(got, value)), "")
        what = f"{where}: the shard of {name} is wrong, its norm is off"
        norms = true.norm().item(), got.norm().item()
        if close_to(*norms, rtol=1e-3):
            raise NotYet(f"{where}: the shard of {name} is wrong", likely=likely)
        raise NotYet(what, *norms, likely)


def _require_early(where: str, log: Log) -> None:
    order, finished, num_sent = _order(), set(), 0
    sent = log.names(SENT)
    likely = "the list of trained parameters, backwards, is the order on every rank"
    require(sent == order, f"{where}: gradients leave in another order", order, sent, likely)
    for what, name in log.entries:
        if what in (FINISHED, END):
            could = next((k for k, each in enumerate(order) if each not in finished), len(order))
            if num_sent < could:
                likely = "everything is sent after backward: send in the hook"
                if _before(log, END):
                    likely = "the hook must send all that can go now, the latest gradient included"
                raise NotYet(f"{where}: {order[num_sent]} could have left earlier", likely=likely)
        finished |= {name} if what == FINISHED else set()
        num_sent += what == SENT
        if what == END:
            break
    likely = "set parameter.grad = None as soon as its values are in flat_P"
    what = f"{where}: {', '.join(log.touched)}: the gradient is still there after it has left"
    require(not log.touched, what, likely=likely)


def _require_rest(where: str, run: ScatterRun) -> None:
    allowed = 3 * LAYER_BYTES  # one layer's flat tensor and shard, reused for all
    what = (
        f"{where}: right, but {run.kept_bytes:,} bytes of gradients stay until backward has ended, "
        f"of {NUM_LAYERS} layers with {LAYER_BYTES:,} each"
    )
    likely = (
        "the full gradient is kept beside the shard: no list, closure or view may refer to it or "
        "to its flat copy"
    )
    require(run.kept_bytes <= allowed, what, likely=likely)


def _before(log: Log, end: str) -> Sequence[str]:
    kinds = [kind for kind, _ in log.entries]
    return [name for kind, name in log.entries[: kinds.index(end)] if kind == SENT]


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6)
