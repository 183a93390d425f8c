"""Judge of lab 06, hooks that send: weights at the start, then log and gradients of each step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.late_link import Log
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_06_mistakes import mistake_of
from utils.checks.truth_06_overlap import (
    EASY_STEPS,
    HARD_STEPS,
    ORDER_STEPS,
    OverlapRun,
    Step,
    StepTruth,
    TwoPaths,
    one_process,
    overlap_trial,
    sending_order,
)

END = "end of backward"
LIKELY_CROSSED = "one order of messages on all ranks, whatever the order of their backwards"
LIKELY_UNUSED = (
    "a weight that the batch does not use has no gradient, so its hook never fires, and the other "
    "ranks wait: finish() sends zeros in its place"
)
RUNS = (
    (2, EASY_STEPS, ""),
    (2, ORDER_STEPS, LIKELY_CROSSED),
    (3, HARD_STEPS, LIKELY_UNUSED),
)


@exercise(
    "06.3",
    "hooks that send",
    hints=[
        "A list of the parameters, last one first; a set of those whose gradient is finished. What "
        "may leave when one more is finished? And which are still at home when backward is over?",
        "In each parameter's register_post_accumulate_grad_hook: add it to the set, then, while "
        "the next parameter of the list is in the set, divide its gradient by world_size and keep "
        "what start_sum returns. finish(): give zeros to those without a gradient, send the rest, "
        "wait for all, empty list and set for the next step.",
    ],
    seconds=200,
    lab="lab_06_data_parallel",
)
def judge_overlap(answer: Callable) -> str:
    """Steps of each kind, each against one process."""
    require_function(answer)
    for world_size, steps, likely in RUNS:
        runs = on_ranks(overlap_trial, world_size, answer, steps, likely=likely)
        truths = one_process(steps, world_size)
        for rank, run in enumerate(runs):
            _require_start(rank, run)
        for number, (step, truth) in enumerate(zip(steps, truths, strict=True), start=1):
            for rank, run in enumerate(runs):
                where = f"On {world_size} ranks, step {number} ({step.name}), rank {rank}"
                _require_step(where, run, number, step, truth, rank)
        _require_rest(runs, truths[0])
    num_early = len(_before(runs[0].steps[-1].log, END, "sent"))
    return (
        f"All {sum(len(steps) for _, steps, _ in RUNS)} steps equal one process; {num_early} of "
        f"{len(sending_order())} messages leave before backward has ended, in one order everywhere."
    )


def _require_start(rank: int, run: OverlapRun) -> None:
    truth = TwoPaths(seed=0)
    right = truth.state_dict()
    others = [name for name in right if not torch.equal(run.start[name], right[name])]
    likely = "buffers are part of the model, too"
    if set(sending_order()) & set(others):
        likely = "parameters never broadcast: the ranks start from different weights"
    elif set(dict(truth.named_parameters())) & set(others):
        likely = "frozen weights differ as well: broadcast all parameters"
    what = f"Rank {rank} has another {', '.join(others)} than rank 0 at the start"
    require(not others, what, likely=likely)


def _require_step(
    where: str, run: OverlapRun, number: int, step: Step, truth: StepTruth, rank: int
) -> None:
    log = run.steps[number - 1].log
    _require_sent(where, log, number, run)
    _require_waits(where, log)
    _require_gradients(where, run.steps[number - 1].gradients, truth, rank)
    _require_early(where, log)


def _require_sent(where: str, log: Log, number: int, run: OverlapRun) -> None:
    sent, order = log.names("sent"), sending_order()
    likely = "" if number == 1 else "finish() must make all ready for the next step"
    if run.own_calls:
        likely = "send with start_sum, which the check can follow, not with torch.distributed"
    require(sent, f"{where}: nothing was sent", likely=likely)
    likely = (
        "send parameter.grad itself, in a hook that runs when it is complete: "
        "register_post_accumulate_grad_hook"
    )
    what = f"{where}: start_sum got a tensor that is no parameter's gradient"
    require("no gradient" not in sent, what, likely=likely)
    twice = [name for name in order if sent.count(name) > 1]
    if twice:
        likely = "hooks are registered anew in every step" if number > 1 else (
            "tied weights have two names, and modules are parts of modules: take each parameter "
            "once, from model.parameters()"
        )
        what = f"{where}: the hook fires twice, {twice[0]} was sent {sent.count(twice[0])} times"
        raise NotYet(what, likely=likely)
    missing = [name for name in order if name not in sent]
    likely = "a weight without a gradient counts as zero and is sent all the same"
    require(not missing, f"{where}: {', '.join(missing)} was not sent", likely=likely)


def _require_waits(where: str, log: Log) -> None:
    waited = log.names("waited")
    missing = [name for name in log.names("sent") if name not in waited]
    likely = "finish() must call wait() on all that start_sum has returned"
    what = f"{where}: finish() did not wait for {len(missing)} of {len(log.names('sent'))} messages"
    require(not missing, what, likely=likely)
    early = _before(log, END, "waited")
    likely = "a wait inside of the hook stops backward: there is no overlap. Wait in finish()"
    require(not early, f"{where}: backward waits for {len(early)} messages", likely=likely)
    likely = "divide before start_sum or after wait(), never in between"
    require(not log.touched, f"{where}: a gradient was changed while it travelled", likely=likely)


def _require_gradients(
    where: str, got: dict[str, Tensor | None], truth: StepTruth, rank: int
) -> None:
    for name, right in truth.mean.items():
        mine = got[name]
        require(mine is not None, f"{where}: {name} has no gradient after finish()")
        if torch.allclose(mine, right, rtol=1e-5, atol=1e-7):
            continue
        what = f"{where}: the gradient of {name} is wrong, its norm is off"
        likely = mistake_of(name, got, truth, rank)
        raise NotYet(what, right.norm().item(), mine.norm().item(), likely)
    frozen = [name for name in got if name not in truth.mean and got[name] is not None]
    require(not frozen, f"{where}: {', '.join(frozen)} is frozen and got a gradient")


def _require_early(where: str, log: Log) -> None:
    order, finished, num_sent = sending_order(), set(), 0
    sent = log.names("sent")
    likely = "the list of parameters, reversed, is the order on every rank"
    require(sent == order, f"{where}: the messages leave in another order", order, sent, likely)
    for what, name in log.entries:
        if what in ("finished", END):
            could = next((k for k, each in enumerate(order) if each not in finished), len(order))
            if num_sent < could:
                likely = "nothing travels before backward has ended: send in the hook"
                if _before(log, END, "sent"):
                    likely = "the hook must send all that can go now, the latest gradient included"
                raise NotYet(f"{where}: {order[num_sent]} could have left earlier", likely=likely)
        finished |= {name} if what == "finished" else set()
        num_sent += what == "sent"
        if what == END:
            break


def _require_rest(runs: Sequence[OverlapRun], truth: StepTruth) -> None:
    for rank, run in enumerate(runs):
        others = ", ".join(run.own_calls)
        likely = "start_sum does all the communication of a step"
        require(not others, f"Rank {rank} called {others} besides", likely=likely)
        where = f"On {len(runs)} ranks, with gloo's asynchronous sums, rank {rank}"
        _require_gradients(where, run.real, truth, rank)


def _before(log: Log, end: str, what: str) -> list[str]:
    kinds = [kind for kind, _ in log.entries]
    return [name for kind, name in log.entries[: kinds.index(end)] if kind == what]
