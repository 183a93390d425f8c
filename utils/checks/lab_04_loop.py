"""Judge of lab 04, a colleague's segments: order of runs, random states, gradients, bytes."""

from collections.abc import Callable

import torch

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_04_loop import INPUT_BYTES, Case, Trace, traced, true_trace

CASES = (
    Case(4, 2), Case(5, 2), Case(4, 2, is_frozen=True), Case(4, 1), Case(2, 3),
    Case(6, 2, in_bytes=True),
)  # fmt: skip
STALE = (
    "the second run reads a variable that has moved on since: fix its value when the segment is "
    "made, for example with functools.partial"
)
SAVES_ALL = "a checkpoint that saves everything: nothing ran again"
NO_GRAPH = (
    "with frozen embeddings no input of the first segment needs a gradient, but its weights do; "
    "torch's use_reentrant=True makes no graph then"
)


@exercise(
    "04.5",
    "a colleague's segments",
    hints=[
        "Ask of each line what it does in backward, after the loop has ended: what is `start` by "
        "then? Which numbers does dropout draw? And which blocks does the loop never reach?",
        "Give run_segment its blocks as an argument and bind them with functools.partial. Run the "
        "last segment after the loop, without a checkpoint. Use a checkpoint that replays random "
        "numbers and does not mind an input without gradient: checkpoint_by_hooks, or torch's "
        "with use_reentrant=False and no further arguments.",
    ],
    seconds=60,
    lab="lab_04_checkpoint_by_hand",
)
def judge_loop(answer: Callable) -> str:
    """Six chains; the first difference from the plain run is explained."""
    require_function(answer)
    truths = [true_trace(case) for case in CASES]  # before anything of the learner's runs
    for case, truth in zip(CASES, truths, strict=True):
        frozen = ", embeddings frozen" if case.is_frozen else ""
        where = f"With {case.num_blocks} blocks in segments of {case.length}{frozen}"
        got = traced(answer, case)
        _require_forward(where, case, got)
        right = got.loss == truth.loss
        require(right, f"{where}, the loss is not the plain run's, to the last bit")
        _require_second_runs(where, case, got)
        _require_gradients(where, truth, got)
        extra_bytes = got.kept_bytes - truth.kept_bytes
        likely = "one input per segment, and the last segment's tensors; everything else runs again"
        few = extra_bytes < INPUT_BYTES // 2
        require(few, f"{where}, {extra_bytes:,} bytes too many wait for backward", likely=likely)
    return (
        f"{len(CASES)} chains with the plain run's loss and gradients; in the last one "
        f"{CASES[-1].num_blocks - CASES[-1].length} of {CASES[-1].num_blocks} blocks run again, "
        f"and {truth.kept_bytes:,} bytes wait for backward."
    )


def _require_forward(where: str, case: Case, got: Trace) -> None:
    first = got.order[: got.num_forward]
    missing = [k for k in range(case.num_blocks) if k not in first]
    if missing:
        off = "segment off by one: the loop ends before the last blocks"
        likely = off if missing[-1] == case.num_blocks - 1 else "the loop leaves some out"
        raise NotYet(f"{where}, block(s) {_listed(missing)} did not run in forward", likely=likely)
    right = first == list(range(case.num_blocks))
    likely = "each block runs once in forward, in order"
    require(right, f"{where}, the blocks ran as {_listed(first)} in forward", likely=likely)


def _require_second_runs(where: str, case: Case, got: Trace) -> None:
    """The right blocks ran again, in the right segments, with the same random numbers."""
    first, second = got.order[: got.num_forward], got.order[got.num_forward :]
    expected = case.expected_order[case.num_blocks :]
    if second != expected:
        what = f"{where}, the blocks that ran again are {_listed(second)}"
        raise NotYet(what, _listed(expected), _listed(second), _order_mistake(case, second))
    states = dict(zip(first, got.states, strict=False))
    later = zip(second, got.states[got.num_forward :], strict=True)
    other = [number for number, state in later if states[number] != state]
    likely = "the random state was not replayed: preserve_rng_state=False is a saving that costs"
    require(not other, f"{where}, dropout drew other numbers when it ran again", likely=likely)


def _order_mistake(case: Case, second: list[int]) -> str:
    """The sentence for second runs that are not the expected ones."""
    expected, last = set(case.expected_order[case.num_blocks :]), set(case.segments[-1])
    missing, unexpected = expected - set(second), set(second) - expected
    if not second:
        return NO_GRAPH if case.is_frozen else SAVES_ALL
    if missing and unexpected:
        return STALE
    if max(map(second.count, second)) > 1:
        return "it recomputes twice: one second run serves a whole segment"
    if unexpected == last:
        return "the last segment's tensors are wanted at once: run it without a checkpoint"
    if missing:
        return NO_GRAPH if case.is_frozen else "every segment but the last runs again"
    return "the segments have other lengths than asked, or run again in pieces"


def _require_gradients(where: str, truth: Trace, got: Trace) -> None:
    for name, right in truth.gradients.items():
        mine = got.gradients[name]
        if right is None:
            require(mine is None, f"{where}, the frozen {name} got a gradient")
            continue
        what = f"{where}, the gradient of {name} is {'missing' if mine is None else 'wrong'}"
        first = name.startswith(("token", "position"))
        likely = "the first segment's input leads on to the embeddings: detach nothing" * first
        require(mine is not None and torch.equal(mine, right), what, likely=likely)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
