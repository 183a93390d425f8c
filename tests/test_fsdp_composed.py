"""FSDP around other techniques: checkpointing, ours and torch's, dropout, autocast."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from tests.fsdp_runs import Way, one_process, threaded, train_all, ways
from tests.zero_runs import CONFIG, Case, gap
from utils.ranks import run_ranks
from utils.techniques.autocast import ManualAutocast
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.segments import checkpointed, segments

PLANS = {"each layer": segments([1, 1, 1]), "two": segments([1, 2]), "nested": (((0, 1), 2),)}
CHECKPOINTS = {
    "hooks": checkpoint_by_hooks,
    "function": checkpoint_by_function,
    "torch's hooks": partial(torch_checkpoint, use_reentrant=False),
    "torch's function": partial(torch_checkpoint, use_reentrant=True),
}
DROPOUT = Case(replace(CONFIG, dropout=0.1))
FROZEN = replace(DROPOUT, frozen=("blocks.0.", "blocks.1.attention.", "blocks.2.feed_forward."))
WAYS = [threaded(ways(prefetch=2)), ways(reshard_after_forward=False)]


def run_again(plan, name):
    return lambda model: checkpointed(model, PLANS[plan], CHECKPOINTS[name])


AGAIN = [
    *((plan, name) for plan in PLANS for name in ("hooks", "function")),
    *(("two", name) for name in ("torch's hooks", "torch's function")),
]


def test_checkpointing_with_dropout_changes_no_bit_and_gathers_nothing_twice():
    cases = [DROPOUT, *(replace(DROPOUT, around=run_again(*each)) for each in AGAIN)]
    runs = [(case, way) for way in WAYS for case in cases]
    for found in run_ranks(train_all, 2, runs, quiet=True):
        for number, mine in enumerate(found):
            plain = found[number - number % len(cases)]
            assert gap(mine.parameters, plain.parameters) == 0.0
            assert torch.equal(mine.losses, plain.losses)
            assert mine.sent == mine.expected
            assert mine.whole == (0, 0, 0)


def test_checkpointing_of_layers_that_are_frozen_in_part():
    cases = [FROZEN, *(replace(FROZEN, around=run_again("two", name)) for name in CHECKPOINTS)]
    for found in run_ranks(train_all, 2, [(case, Way()) for case in cases], quiet=True):
        for mine in found:
            assert gap(mine.parameters, found[0].parameters) == 0.0
            assert mine.sent == found[0].sent and mine.whole == (0, 0, 0)


@contextmanager
def autocast_and_checkpoint(model):
    with torch.autocast("cpu", torch.bfloat16), run_again("two", "hooks")(model):
        yield


@contextmanager
def ours_and_checkpoint(model):
    with ManualAutocast(), run_again("each layer", "function")(model):
        yield


def test_autocast_torchs_and_ours_alone_and_with_checkpointing():
    torchs, ours = (lambda _: torch.autocast("cpu", torch.bfloat16)), (lambda _: ManualAutocast())
    pairs = [
        (Case(around=torchs), torchs),
        (Case(around=autocast_and_checkpoint), torchs),
        (Case(around=ours), ours),
        (Case(around=ours_and_checkpoint), ours),
    ]
    found = run_ranks(train_all, 2, [(case, Way()) for case, _ in pairs], quiet=True)[0]
    for (_, plain), mine in zip(pairs, found, strict=True):
        oracle = one_process(Case(around=plain), 2)
        assert gap(mine.parameters, oracle.parameters) == 0.0
        assert mine.sent == mine.expected
