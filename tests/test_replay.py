"""Running a function again: its arguments, its random numbers, its autocast, and none of ours."""

import threading
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from utils.memory import MemoryMeter
from utils.techniques.autocast import ManualAutocast, current_autocast
from utils.techniques.autocast_rules import CPU_RULES, CUDA_RULES
from utils.techniques.replay import Call, ReplayState, join, split

BF16, FP16 = torch.bfloat16, torch.float16
X = torch.ones(64)
Pair = namedtuple("Pair", "left right")


def drop():
    return F.dropout(X, 0.5)


def test_a_second_run_draws_the_same_numbers_and_the_stream_outside_goes_on():
    torch.manual_seed(0)
    state = ReplayState([X])
    first = drop()
    expected = torch.rand(4)
    torch.manual_seed(0)
    drop()
    for _ in range(3):
        with state.replay():
            assert torch.equal(drop(), first)
            drop()  # draws more than the first run did
    assert torch.equal(torch.rand(4), expected)


def test_an_error_in_the_second_run_leaves_the_stream_as_it_was():
    state = ReplayState([X])
    torch.rand(5)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), state.replay():
        drop()
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_drawn_from_a_fork_are_replayed_too():
    """Afterwards the generator looks as if nothing had been drawn."""

    def forked():
        with torch.random.fork_rng(devices=[]):
            return drop()

    state = ReplayState([X])
    first = forked()
    torch.rand(3)
    with state.replay():
        assert torch.equal(forked(), first)


def test_functions_that_draw_nothing_share_one_state():
    torch.rand(1)
    first, second = ReplayState([X]), ReplayState([])
    assert first._random is second._random
    drop()
    third = ReplayState([X])
    assert third._random is not first._random
    with first.replay():
        nested = ReplayState([X])
    assert torch.equal(nested._random[0], first._random[0])


def test_noting_and_replaying_is_invisible_to_the_meter():
    with MemoryMeter() as meter:
        state = ReplayState([X])
        with state.replay():
            pass
    assert meter.report().peak_bytes == 0


def test_another_thread_notes_a_state_of_its_own():
    states = [ReplayState([X])]
    thread = threading.Thread(target=lambda: states.append(ReplayState([X])))
    thread.start()
    thread.join()
    assert torch.equal(states[0]._random[0], states[1]._random[0])


def product():
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


AUTOCASTS = [
    lambda: torch.autocast("cpu", BF16),
    lambda: torch.autocast("cpu", FP16),
    lambda: torch.autocast("cpu", BF16, enabled=False),
    lambda: torch.autocast("cpu", BF16, cache_enabled=False),
    lambda: ManualAutocast(CPU_RULES, BF16),
    lambda: ManualAutocast(CPU_RULES, FP16),
    lambda: ManualAutocast(CPU_RULES, BF16, enabled=False),
]


@pytest.mark.parametrize("now", range(len(AUTOCASTS)))
@pytest.mark.parametrize("then", range(len(AUTOCASTS)))
def test_autocast_of_the_first_run_holds_inside_and_that_of_now_outside(then, now):
    with AUTOCASTS[then]():
        state, expected = ReplayState([X]), product()
        cached = torch.is_autocast_cache_enabled()
    with state.replay():
        assert product() == expected
    assert product() == torch.float32 and current_autocast() is None
    with AUTOCASTS[now]() as context:
        before = product(), torch.is_autocast_cache_enabled()
        with pytest.raises(ZeroDivisionError), state.replay():
            assert product() == expected and torch.is_autocast_cache_enabled() == cached
            raise ZeroDivisionError
        assert (product(), torch.is_autocast_cache_enabled()) == before
        assert current_autocast() in (context, None)


def test_a_run_without_autocast_stays_without_inside_of_one():
    state = ReplayState([X])
    for autocast in AUTOCASTS:
        with autocast(), state.replay():
            assert product() == torch.float32


def test_rules_and_regions_of_our_autocast_come_back():
    half = torch.ones(2, 2, dtype=BF16)
    with ManualAutocast(CUDA_RULES, BF16), ManualAutocast(CUDA_RULES, FP16):
        state = ReplayState([X])
    with ManualAutocast(CPU_RULES, BF16), state.replay():
        assert half.softmax(-1).dtype == torch.float32  # so it is in CUDA_RULES only
        assert product() == FP16


def test_weights_that_the_second_run_casts_are_not_kept():
    layer, x = nn.Linear(4, 4, bias=False), torch.ones(1, 4)
    with ManualAutocast():
        state, before = ReplayState([x]), layer(x)
    with state.replay():
        assert torch.equal(layer(x), before)
    with torch.no_grad():
        layer.weight.add_(1.0)
    with state.replay():
        assert (layer(x) - before).min() > 3


def test_a_call_is_made_again_with_other_tensors_in_the_same_places():
    def function(a, numbers, /, *rest, scale, pair):
        return {"sum": a + numbers["x"] + rest[0][1], "scale": scale, "pair": pair, "none": None}

    a, b, c, d = (torch.full((2,), float(value)) for value in range(4))
    call = Call(function, (a, {"x": b}, ("word", c)), {"scale": 3, "pair": Pair(d, 5)})
    assert [id(tensor) for tensor in call.tensors] == [id(tensor) for tensor in (a, b, c, d)]
    tensors = call.release()
    assert call.tensors == []
    first = call.run(tensors)
    again = call.run([tensor + 10 for tensor in tensors])
    assert first["scale"] == again["scale"] == 3 and first["none"] is None
    assert torch.equal(first["sum"], a + b + c) and torch.equal(again["sum"], a + b + c + 30)
    assert type(again["pair"]) is Pair and again["pair"].right == 5
    assert torch.equal(again["pair"].left, d + 10)


def test_what_is_split_joins_to_the_same():
    x = torch.tensor(2.0)
    for nested in (x, None, 3, (), [x], (x, x), {"a": (x, [None, "b"]), "c": Pair(x, x)}):
        tensors, rest = split(nested)
        assert all(tensor is x for tensor in tensors)
        assert join(tensors, rest) == nested


def test_a_call_keeps_neither_its_tensors_nor_its_result():
    call = Call(lambda x: (x * 2, "kept?"), (torch.ones(3),), {})
    with MemoryMeter() as meter:
        call.run([torch.ones(100)])
    assert meter.report().end_bytes == 0


@pytest.mark.parametrize("change", [torch.Tensor.relu_, lambda x: x[1:].mul_(2), lambda x: x.t_()])
def test_a_function_that_changes_its_input_is_refused(change):
    call = Call(lambda x, y: change(y) + x.sum(), (torch.ones(()), torch.ones(3)), {})
    with pytest.raises(RuntimeError, match=r"changed one of its inputs in place.*relu_"):
        call.run(call.release())


def test_tensors_made_in_inference_mode_do_not_stand_in_the_way():
    with torch.inference_mode():
        x = torch.ones(3)
    assert torch.equal(Call(torch.neg, (x,), {}).run([x]), -x)
