"""What checkpoints keep and what their work costs: bytes by the meter, FLOPs by torch's counter."""

import gc
import weakref
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.checkpoint_cases import CONFIG, EACH_BLOCK, OURS, PAIRS, TORCHS, in_plan, leaf, nested
from tests.helpers import batch_for
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.techniques.selective import checkpoint_keeping, keep_products

SELECTIVE = {"selective": checkpoint_keeping(keep_products)}
EACH = pytest.mark.parametrize("checkpoint", (OURS | SELECTIVE).values(), ids=OURS | SELECTIVE)
ALL = OURS | TORCHS
SAME_KIND = {"function": "torch, reentrant", "hooks": "torch, hooks"}


@cache
def metered(config, plan, checkpoint):
    """Bytes: the peak, what waits between forward and backward, and what is there afterwards."""
    model = build_gpt(config)
    batch = batch_for(config, 2)
    next_token_loss(model, *batch).backward()  # gradients are there before and after
    with in_plan(model, plan, checkpoint), MemoryMeter(model) as meter:
        loss = next_token_loss(model, *batch)
        meter.mark("between")
        loss.backward()
        del loss
        meter.mark("end")
    report = meter.report()
    at = {mark: sum(report.at_mark(mark).values()) for mark in ("between", "end")}
    return report.peak_bytes, at["between"], at["end"]


@pytest.mark.parametrize("attention, dropout", [("explicit", 0.0), ("fused", 0.1)])
@pytest.mark.parametrize("plan", [EACH_BLOCK, PAIRS], ids=str)
@pytest.mark.parametrize("name", OURS)
def test_peak_and_kept_bytes_are_at_most_torchs(name, plan, dropout, attention):
    config = replace(CONFIG, attention=attention, dropout=dropout)
    ours = metered(config, plan, OURS[name])
    theirs = metered(config, plan, TORCHS[SAME_KIND[name]])
    plain = metered(config, None, None)
    assert ours[0] <= theirs[0] < 0.8 * plain[0]
    assert ours[1] == theirs[1] < 0.7 * plain[1]
    assert ours[2] == theirs[2] == plain[2]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", OURS)
def test_nested_ones_drop_the_inputs_of_the_inner_ones_too(name):
    both = [nested(kind[n], kind[n]) for kind, n in ((OURS, name), (TORCHS, SAME_KIND[name]))]
    ours, theirs = (metered(CONFIG, PAIRS, checkpoint) for checkpoint in both)
    assert ours[0] <= theirs[0] and ours[1:] == theirs[1:]


@pytest.mark.parametrize("name", ALL)
def test_between_forward_and_backward_only_the_inputs_are_kept(name):
    x = torch.ones(100).requires_grad_()
    with MemoryMeter() as meter:
        y = ALL[name](lambda x: x.sin().exp().cos().sum(), x)
        meter.mark("between")
    assert sum(meter.report().at_mark("between").values()) == x.nbytes + y.nbytes


def test_a_branch_that_nobody_can_ask_for_is_not_brought_back():
    def function(x):
        x.exp().sin().tan().sum()  # its graph dies here
        return x.cos().sin()

    peaks = []
    for name in ("hooks", "torch, hooks"):
        x = torch.ones(1000).requires_grad_()
        with MemoryMeter() as meter:
            ALL[name](function, x).sum().backward()
        peaks.append(meter.report().peak_bytes)
    assert peaks[0] <= peaks[1]


def test_what_one_backward_pass_does_not_want_goes_when_it_ends():
    x, z = torch.ones(1000).requires_grad_(), torch.ones(1000).requires_grad_()
    y = OURS["hooks"](lambda x, z: x.exp() + z.exp().cos().exp(), x, z).sum()
    with MemoryMeter() as meter:
        torch.autograd.grad(y, x, retain_graph=True)
    held = x.nbytes + z.nbytes + y.nbytes  # there all along, and seen by the meter
    assert meter.report().end_bytes <= held
    assert meter.report().peak_bytes > held + 2 * x.nbytes


def test_looking_at_a_saved_tensor_outside_of_backward_keeps_nothing():
    x, calls = torch.ones(1000).requires_grad_(), []
    y = OURS["hooks"](lambda x: calls.append(1) or x.exp().sin().exp(), x)
    with MemoryMeter() as meter:
        for num_runs in (2, 3):
            assert torch.equal(y.grad_fn._saved_result, y.detach()) and len(calls) == num_runs
    assert meter.report().end_bytes <= x.nbytes + y.nbytes


def flops(config, plan, checkpoint):
    model = build_gpt(config)
    batch = batch_for(config, 4)
    with in_plan(model, plan, checkpoint), FlopCounterMode(display=False) as counter:
        next_token_loss(model, *batch).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_flops_are_torchs_and_the_function_variant_repeats_whole_blocks(attention):
    config = replace(CONFIG, attention=attention, dropout=0.0)  # else the last mask is saved
    plain = flops(config, None, None)
    by = {name: flops(config, EACH_BLOCK, checkpoint) for name, checkpoint in ALL.items()}
    assert by["hooks"] == by["torch, hooks"] and by["function"] == by["torch, reentrant"]
    block, x_BTD = build_gpt(config).blocks[0], torch.ones(4, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(x_BTD)
    assert by["function"] - plain == 4 * counter.get_total_flops()
    narrow = 2 * (4 * 32) * 128 * 32  # the block's last product: its result is not saved
    assert by["function"] - by["hooks"] == 4 * narrow


@EACH
def test_nothing_outlives_the_step_although_the_cycle_collector_is_off(checkpoint):
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 8))
    model(torch.ones(2, 8)).sum().backward()
    model.zero_grad(set_to_none=False)
    alive = []

    def function(x):
        alive.append(weakref.ref(x))
        y = checkpoint(model, x)
        alive.append(weakref.ref(y))
        return {"y": y.sin(), "model": model, "box": SimpleNamespace(y=y)}

    with MemoryMeter(model) as meter:
        for _ in range(2):
            meter.mark("start")
            x = torch.ones(2, 8).requires_grad_()
            out = checkpoint(function, x)
            out["y"].sum().backward(retain_graph=True)
            out["y"].sum().backward()
            del x, out
        meter.mark("end")
        assert not gc.isenabled() and all(reference() is None for reference in alive)
    report = meter.report()
    assert sum(report.at_mark("end").values()) == sum(p.nbytes for p in model.parameters()) * 2


@contextmanager
def no_collector():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@EACH
def test_nothing_outlives_an_error_or_a_step_that_is_given_up(checkpoint):
    alive = []

    def function(x):
        y = x.exp()
        alive.append(weakref.ref(y))
        if len(alive) == 2:
            raise ZeroDivisionError
        return y.sin()

    with no_collector():
        for _ in range(3):
            y = checkpoint(function, leaf(1, 2))
            try:
                if len(alive) < 4:
                    y.sum().backward()
            except ZeroDivisionError:
                pass
            del y
        assert [reference() for reference in alive] == [None] * len(alive)
