"""Judge of lab 08, free at the right moment: weights when they are used, and at no other time."""

from collections.abc import Callable

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_08_log import (
    DONE,
    most_whole,
    require_messages,
    require_values,
    require_weights,
    sent,
    split,
)
from utils.checks.truth_08_stack import PassRun, one_process, stack_trial
from utils.checks.truth_08_store import FREE

NUM_RANKS, ORDER = 2, (0, 1, 2, 3)
LIKELY_STUCK = "the same gathers in the same order on all ranks"


@exercise(
    "08.1",
    "free at the right moment",
    hints=[
        "Before forward, after forward, before backward, after backward. The last one has no hook "
        "of its own: when how many gradients have arrived? Each layer must count for itself, and "
        "begin anew in each backward.",
        "Write a function watch(k, layer), called for each layer, so that each has its own set "
        "`waiting`. Forward pre-hook: gather(k). Forward hook: free(k). Backward pre-hook: put all "
        "parameters into waiting, gather(k). On a parameter's gradient: take it out of waiting; if "
        "the set is empty, free(k).",
    ],
    seconds=100,
    lab="lab_08_fsdp",
)
def judge_free(answer: Callable) -> str:
    """Training, an evaluation, training; each against one process."""
    require_function(answer)
    by_rank = on_ranks(stack_trial, NUM_RANKS, answer, ORDER, ("gather",), likely=LIKELY_STUCK)
    truths = one_process(ORDER, NUM_RANKS)
    for rank, runs in enumerate(by_rank):
        for number, (run, truth) in enumerate(zip(runs, truths, strict=True), start=1):
            where = f"Pass {number} ({run.kind}), rank {rank}"
            require_weights(where, run)
            _require_freed(where, run)
            require_messages(where, run, len(ORDER))
            require_values(where, run, truth, rank)
    return (
        f"Never more than one of {len(ORDER)} layers is whole, {len(sent(by_rank[0][0].entries))} "
        f"gathers in a step, {len(sent(by_rank[0][1].entries))} in an evaluation, and all "
        "gradients equal one process."
    )


def _require_freed(where: str, run: PassRun) -> None:
    forward, backward = split(run.entries)
    at_once = most_whole(forward)
    if at_once > 1:
        likely = "full weights are kept: free a layer when its forward has ended"
        if at_once == 2:
            likely = "free a layer when its own forward ends, not when the next one begins"
        raise NotYet(f"{where}: in forward, {at_once} layers are whole at once", 1, at_once, likely)
    at_once = most_whole(backward)
    if at_once > 1:
        freed = [entry for entry in backward if entry.what == FREE]
        likely = f"free a layer as soon as its backward has ended: {DONE}"
        if at_once == len(ORDER):
            likely = "full weights are kept: free a layer when its backward has ended"
            if len(freed) >= len(ORDER):
                likely = f"freed only at the end of the step: {DONE}"
        what = f"{where}: in backward, {at_once} layers are whole at once"
        raise NotYet(what, 1, at_once, likely)
