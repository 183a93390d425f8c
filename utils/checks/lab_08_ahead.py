"""Judge of lab 08, prefetch the next layer: what is issued, awaited and whole, in which order."""

import itertools
from collections.abc import Callable, Sequence

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_08_log import (
    most_whole,
    places,
    require_messages,
    require_values,
    require_weights,
    split,
)
from utils.checks.truth_08_stack import PASSES, TRAIN, PassRun, one_process, stack_trial
from utils.checks.truth_08_store import BACKWARD, FORWARD, GATHER, WAIT, Entry

NUM_RANKS, ORDER = 2, (2, 0, 4, 3, 1)
LIKELY_STUCK = "the same gathers in the same order on all ranks"
BY_NUMBER = "the list's numbers say nothing of the order of computation: follow the last forward"


@exercise(
    "08.2",
    "prefetch the next layer",
    hints=[
        "One list holds the order: a layer that is not yet in it is appended when its forward "
        "begins. Who follows in forward, who in backward? And what has been started already must "
        "not be started again: keep what start_gather returned, by layer, until you free it.",
        "start(k): if k is not in the dict pending, pending[k] = start_gather(k). gather(k): put k "
        "into order if it is new, start(k), pending[k].wait(). leave(k): free(k), del pending[k]. "
        "free_in_time(layers, gather, leave). Then one more forward pre-hook and one more backward "
        "pre-hook for each layer: start the one after it in order, or the one before it, if any.",
    ],
    seconds=100,
    lab="lab_08_fsdp",
)
def judge_ahead(answer: Callable) -> str:
    """Training, an evaluation, training; over a late lane, then over a thread's."""
    require_function(answer)
    ways = ("late", "thread")
    by_rank = on_ranks(stack_trial, NUM_RANKS, answer, ORDER, ways, likely=LIKELY_STUCK)
    truths = one_process(ORDER, NUM_RANKS)
    for rank, runs in enumerate(by_rank):
        for number, run in enumerate(runs):
            place = number % len(PASSES)
            where = f"Pass {place + 1} ({run.kind}), rank {rank}"
            if number < len(PASSES):
                require_weights(where, run)
                _require_order(where, run, is_first=place == 0)
                _require_memory(where, run)
                require_messages(where, run, len(ORDER))
            require_values(where, run, truths[place], rank)
    hidden = len(ORDER) - 1
    return (
        f"From the second forward on, {hidden} of {len(ORDER)} gathers travel while the layer "
        f"before computes, in backward {hidden} of {len(ORDER)}; never more than two layers are "
        "whole or under way."
    )


def _require_order(where: str, run: PassRun, is_first: bool) -> None:
    forward, _ = split(run.entries)
    if is_first:
        _require_nothing_ahead(where, forward)
    else:
        _require_ahead(f"{where}, forward", forward, FORWARD, ORDER)
    allowed = ORDER[-2:] if run.kind == TRAIN else ORDER[-1:]  # for backward, beside the loss
    before = places(forward, FORWARD, ORDER[-2])[-1]
    late = [each.layer for each in forward[before:] if each.what == GATHER]
    useless = [layer for layer in late if layer not in allowed]
    if useless:
        what = f"{where}: at the end of forward, layer {useless[0]} is gathered"
        raise NotYet(what, likely="after the last layer of forward, none comes next")
    backward = run.entries[places(forward, FORWARD, ORDER[-1])[-1] + 1 :]
    if run.kind == TRAIN:
        _require_ahead(f"{where}, backward", backward, BACKWARD, ORDER[::-1])


def _require_nothing_ahead(where: str, entries: Sequence[Entry]) -> None:
    for place, layer in enumerate(ORDER):
        begins = places(entries, FORWARD, layer)[0]
        gathered = [each.layer for each in entries[:begins] if each.what == GATHER]
        early = [each for each in gathered if each in ORDER[place + 1 :]]
        if early:
            what = f"{where}: in the first forward, layer {early[0]} is gathered before layer "
            what += f"{layer} computes, though nobody knows what comes next"
            raise NotYet(what, likely=_first_mistake(early))


def _first_mistake(early: Sequence[int]) -> str:
    return "everything is prefetched at once" if len(early) > 2 else BY_NUMBER


def _require_ahead(where: str, entries: list[Entry], kind: str, order: Sequence[int]) -> None:
    for now, following in itertools.pairwise(order):
        begins = places(entries, kind, now)[0]
        started = [i for i in places(entries, GATHER, following) if i < begins]
        own = places(entries[:begins], GATHER, now)
        what = f"{where}: while layer {now} computes, the weights of layer {following} "
        if not started:
            raise NotYet(f"{what}do not travel", likely=_instead(entries, kind, order))
        if [i for i in places(entries, WAIT, following) if i < begins]:
            likely = "it is waited for at once, so nothing overlaps: wait when it is needed"
            raise NotYet(f"{what}have arrived before", likely=likely)
        likely = "whoever needs weights now asks first: lanes deliver in the order of issue"
        queues = bool(own) and started[0] < own[0]
        require(not queues, f"{what}travel, but layer {now}'s queue behind them", likely=likely)


def _instead(entries: list[Entry], kind: str, order: Sequence[int]) -> str:
    """What was gathered in place of the layers that come next."""
    pairs, start = [], 0  # (a layer, what was gathered just before it computes, itself left out)
    for now in order:
        begins = places(entries, kind, now)[0]
        window = [each.layer for each in entries[start:begins] if each.what == GATHER]
        pairs += [(now, layer) for layer in window[-1:] if layer != now]
        start = begins
    if not pairs:
        return "it is gathered when it is needed: start its gather before this layer computes"
    if kind == BACKWARD and all(pair in itertools.pairwise(ORDER) for pair in pairs):
        return "this prefetches the following layer of forward; backward goes the other way"
    return BY_NUMBER


def _require_memory(where: str, run: PassRun) -> None:
    for name, entries in zip(("forward", "backward"), split(run.entries), strict=True):
        at_once = most_whole(entries)
        likely = "one layer ahead is enough, and each is freed as soon as it is done"
        kind = FORWARD if name == "forward" else BACKWARD
        marks = [i for i, entry in enumerate(entries) if entry.what == kind]
        if marks and len(entries[marks[0]].whole) > 2:
            likely = "everything is prefetched at once: one layer ahead is enough"
        what = f"{where}: in {name}, {at_once} layers are whole or under way at once"
        require(at_once <= 2, what, 2, at_once, likely)
