"""What lab 08's log of gathers tells: who computed without weights, and how many layers were whole.

How it works: a pass of the stack is a list of entries (truth_08_store.py). The sentences here are
those that both exercises with hooks need.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_08_stack import TRAIN, PassRun, PassTruth
from utils.checks.truth_08_store import BACKWARD, FREE, GATHER, MISSING, TURN, WAIT, Entry

ACTS = (GATHER, WAIT, FREE)
UNDER_WAY = "its gather is under way: call wait() on what start_gather has returned"
LATE_K = "a hook that is made in a loop sees the loop's last k when it is called"
DONE = "a layer is done when all of its parameters have their gradients"


def split(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The entries of forward, and those from its end on."""
    turn = next(i for i, entry in enumerate(entries) if entry.what == TURN)
    return list(entries[:turn]), list(entries[turn:])


def sent(entries: Sequence[Entry]) -> list[int]:
    """The layers that were gathered, those left out that were whole already."""
    pairs = zip([None, *entries], entries, strict=False)
    return [
        now.layer for before, now in pairs
        if now.what == GATHER and not (before and now.layer in before.whole)
    ]  # fmt: skip


def places(entries: Sequence[Entry], what: str, layer: int) -> list[int]:
    """Where in the log something happened to a layer."""
    return [i for i, each in enumerate(entries) if (each.what, each.layer) == (what, layer)]


def most_whole(entries: Sequence[Entry]) -> int:
    """The most layers that were whole, or under way, at the same time."""
    return max((len(entry.whole) for entry in entries), default=0)


def require_weights(where: str, run: PassRun) -> None:
    """Every layer has its weights when it computes, forward and backward."""
    forward, backward = split(run.entries)
    require(sent(run.entries), f"{where}: nothing is gathered", likely="register hooks on layers")
    lost = _missing(forward)
    if lost:
        place, layer = lost
        what = f"{where}: layer {layer} computes forward without its weights"
        raise NotYet(what, likely=_why_not_forward(forward[:place], layer))
    lost = _missing(backward)
    if lost:
        place, layer = lost
        what = f"{where}: layer {layer} computes backward without its weights"
        raise NotYet(what, likely=_why_not_backward(backward, place, layer))


def _missing(entries: Sequence[Entry]) -> tuple[int, int] | None:
    found = ((i, each.layer) for i, each in enumerate(entries) if each.what == MISSING)
    return next(found, None)


def _why_not_forward(entries: Sequence[Entry], layer: int) -> str:
    if _not_awaited(entries, layer):
        return UNDER_WAY
    others = {each.layer for each in entries if each.what == GATHER}
    if len(others) == 1 and others != {layer} and max(others) > layer:
        return f"{LATE_K} (here {max(others)}): make the hook in a function that gets k"
    return "gather a layer before its forward, in a hook of register_forward_pre_hook"


def _why_not_backward(entries: Sequence[Entry], place: int, layer: int) -> str:
    gathers = places(entries, GATHER, layer)
    freed = [i for i in places(entries, FREE, layer) if i < place]
    if not gathers:
        return "freed after forward and not gathered again for backward"
    if gathers[0] > place:
        return (
            "the gather in backward comes too late: a parameter's gradient is there when its layer "
            "has computed. Gather before the layer's backward"
        )
    if freed and freed[-1] > gathers[0]:
        text = f"freed before backward has used them: {DONE}"
        if not places(entries[:place], BACKWARD, layer)[1:]:
            text += ". register_full_backward_hook calls too early if the input needs no gradient"
        return text
    if _not_awaited(entries[:place], layer):
        return UNDER_WAY
    return ""


def _not_awaited(entries: Sequence[Entry], layer: int) -> bool:
    """Whether the last thing that was done for a layer is to start its gather."""
    acts = [each.what for each in entries if each.layer == layer and each.what in ACTS]
    return acts[-1:] == [GATHER]


def require_messages(where: str, run: PassRun, num_layers: int) -> None:
    """Each layer is gathered once for forward and once for backward, and is freed at the end."""
    allowed = 2 if run.kind == TRAIN else 1
    messages = sent(run.entries)
    often = [k for k in range(num_layers) if messages.count(k) > allowed]
    if often:
        what = f"{where}: layer {often[0]} is gathered {messages.count(often[0])} times"
        likely = "one gather for forward and one for backward"
        raise NotYet(what, f"at most {allowed}", messages.count(often[0]), likely)
    left = run.entries[-1].whole
    what = f"{where}: at the end {len(left)} of {num_layers} layers are whole"
    require(not left, what, likely="free each layer when its last use of this pass is over")


def require_values(where: str, run: PassRun, truth: PassTruth, rank: int) -> None:
    """The loss and all gradients are those of one process."""
    likely = "a hook that returns something replaces what it was called with: return None"
    right = truth.losses[rank]
    require(close_to(run.loss, right, 1e-4), f"{where}: the loss is wrong", right, run.loss, likely)
    pairs = zip(run.gradients, truth.gradients[rank], strict=run.kind == TRAIN)
    for number, (got, true) in enumerate(pairs):
        equal = got.shape == true.shape and torch.allclose(got, true, rtol=1e-4, atol=1e-7)
        require(equal, f"{where}: the gradient of parameter {number} is wrong", likely=likely)
