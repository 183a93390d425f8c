"""Other right answers to lab 04 pass, and no answer harms what comes after it."""

import gc
import itertools
import random
import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.wrong_builders_04 import right
from utils.checks.engine import EXERCISES, judge
from utils.checks.truth_04_loop import plain_loss
from utils.techniques.checkpointing import checkpoint_by_function
from utils.techniques.replay import ReplayState


class ClassReplay:
    def __init__(self, *generators):
        self.sources = (torch.default_generator, *generators)
        self.noted = self.read()

    def read(self):
        return random.getstate(), [source.get_state() for source in self.sources]

    def write(self, state):
        random.setstate(state[0])
        [source.set_state(each) for source, each in zip(self.sources, state[1], strict=True)]

    def __call__(self):
        return _Block(self)


class _Block:
    def __init__(self, replay):
        self.replay = replay

    def __enter__(self):
        self.found = self.replay.read()
        self.replay.write(self.replay.noted)

    def __exit__(self, *error):
        self.replay.write(self.found)


class NoDetach(torch.autograd.Function):
    """Not detached, for torch.autograd.grad stops where it is told to; the lesson's ReplayState."""

    @staticmethod
    def forward(ctx, run, num_inputs, *tensors):
        ctx.run, ctx.num_inputs, ctx.state = run, num_inputs, ReplayState([])
        ctx.save_for_backward(*tensors)
        return run(*tensors[:num_inputs])

    @staticmethod
    def backward(ctx, *gradients):
        needed, tensors = ctx.needs_input_grad[2:], ctx.saved_tensors
        with torch.enable_grad(), ctx.state.replay():
            results = ctx.run(*tensors[: ctx.num_inputs])
        results = (results,) if isinstance(results, Tensor) else results
        roots = [k for k, result in enumerate(results) if result.requires_grad]
        found = iter(torch.autograd.grad(
            [results[k] for k in roots], [t for t, n in zip(tensors, needed, strict=True) if n],
            [gradients[k] for k in roots], allow_unused=True))  # fmt: skip
        return None, None, *(next(found) if n else None for n in needed)


def without_detach(module, *args, **kwargs):
    named = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in kwargs.items() if name not in named}

    def run(*tensors):
        return module(*tensors[: len(args)], **dict(zip(named, tensors[len(args):], strict=True)),
                      **rest)

    tensors = (*args, *named.values())
    return NoDetach.apply(run, len(tensors), *tensors, *module.parameters())


def search_lengths(num_blocks, block_bytes, input_bytes, room_bytes):
    """Tries every way to cut, the ones with a long last part first."""
    for kept in range(num_blocks, 0, -1):
        for num_parts in range(num_blocks - kept + 1):
            for cuts in itertools.combinations(range(1, num_blocks - kept), max(num_parts - 1, 0)):
                ends = [0, *cuts, num_blocks - kept] if num_parts else [0]
                lengths = [*(b - a for a, b in itertools.pairwise(ends)), kept]
                needs = [k * input_bytes + n * block_bytes for k, n in enumerate(lengths)]
                if sum(lengths) == num_blocks and max(needs) <= room_bytes:
                    return lengths
    return []


def by_function(layers, tokens_BT, length):
    embed, *blocks, loss = layers

    def run(first, last, x_BTD):
        for block in blocks[first:last]:
            x_BTD = block(x_BTD)
        return x_BTD

    x_BTD, start = embed(tokens_BT), 0
    while start + length < len(blocks):
        x_BTD = checkpoint_by_function(run, start, start + length, x_BTD)
        start += length
    return loss(run(start, len(blocks), x_BTD))


OTHERS = [
    ("04.1", ClassReplay),
    ("04.2", without_detach),
    ("04.3", search_lengths),
    ("04.5", by_function),
]


@pytest.mark.parametrize("key, answer", OTHERS)
def test_another_right_answer_passes(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


def forever():
    while True:
        time.sleep(0.01)


class LoopsUnderTheMeter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, module, x, *rest):
        return x * 2.0

    @staticmethod
    def backward(ctx, gradient):
        return forever()


def loops_in_backward(layers, tokens_BT, length):
    return LoopsUnderTheMeter.apply(None, plain_loss(layers, tokens_BT, length))


def loops_when_measured(layers, tokens_BT, length):
    return forever() if gc.isenabled() is False else right["segmented_loss"](
        layers, tokens_BT, length)


def endless_lengths(*sizes):
    return right["cut_chain"](*sizes) or forever()


@pytest.mark.parametrize(
    "key, answer",
    [("04.5", loops_in_backward), ("04.5", loops_when_measured), ("04.3", endless_lengths)],
)
def test_a_loop_is_stopped_and_leaves_nothing_behind(key, answer, monkeypatch):
    judge(key, None)
    monkeypatch.setitem(EXERCISES, key, replace(EXERCISES[key], seconds=6.0))
    resize = torch.UntypedStorage.resize_
    outcome = judge(key, answer)
    assert outcome.status == "stopped", outcome.message
    assert gc.isenabled() and torch.UntypedStorage.resize_ is resize


def spoils(answer):
    """An answer that leaves torch's switches as no judge would want to find them."""

    def spoiled(*args, **kwargs):
        result = answer(*args, **kwargs)
        torch.set_grad_enabled(False)
        torch.manual_seed(1)
        torch.set_default_dtype(torch.float64)
        torch.autograd.graph.saved_tensors_hooks(Tensor.clone, lambda tensor: tensor).__enter__()
        return result

    return spoiled


@pytest.mark.parametrize("key, name", [("04.2", "checkpoint_module"), ("04.5", "segmented_loss"),
                                       ("04.4", "parallel_chain_bytes")])  # fmt: skip
def test_switches_that_an_answer_leaves_do_not_reach_the_next_check(key, name):
    before = torch.get_rng_state()
    judge(key, spoils(right[name]))  # whatever it says
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), before)
    outcome = judge(key, right[name])
    assert outcome.status == "passed", outcome.message
