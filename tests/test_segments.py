"""Plans: what they say, that layers run just so, and the models that they are put into."""

import copy
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from tests.checkpoint_cases import CONFIG, OURS
from tests.helpers import batch_for
from utils.model import build_gpt
from utils.techniques.segments import (
    checkpointed,
    even_lengths,
    every,
    layers_of,
    run_plan,
    runs_of,
    segments,
)

PLANS = [
    (0, 1, 2, 3),
    ((0, 1, 2, 3),),
    ((0, 1), (2, 3)),
    ((0,), 1, (2,), 3),
    ((((0,), 1), 2), 3),
    (0, (1, (2,), 3)),
    ((0, (1, 2), 3),),
]


def test_segments_are_neighbours_of_the_lengths_asked_for():
    assert segments([2, 1, 3]) == ((0, 1), (2,), (3, 4, 5))
    assert layers_of(segments([2, 1, 3])) == list(range(6))
    for lengths in ([], [2, 0], [-1]):
        with pytest.raises(ValueError, match="at least one layer"):
            segments(lengths)


def test_even_lengths_differ_by_one_and_the_longer_ones_come_last():
    assert even_lengths(7, 3) == [2, 2, 3] and even_lengths(8, 3) == [2, 3, 3]
    for num_layers in range(1, 9):
        for num_segments in range(1, num_layers + 1):
            lengths = even_lengths(num_layers, num_segments)
            assert sum(lengths) == num_layers and len(lengths) == num_segments
            assert lengths == sorted(lengths) and lengths[-1] - lengths[0] <= 1
    for num_segments in (0, 5, -1):
        with pytest.raises(ValueError, match=f"4 layers make 1 to 4 segments, not {num_segments}"):
            even_lengths(4, num_segments)


def test_every_second_layer_runs_again():
    assert every(5, 2) == ((0,), 1, (2,), 3, (4,)) and every(2, 1) == ((0,), (1,))
    assert every(3, 7) == ((0,), 1, 2)
    with pytest.raises(ValueError, match="makes no plan"):
        every(4, 0)


def count_layer(calls, number, x):
    calls[number] += 1
    return (x + number).sin().exp()


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_layer_runs_once_and_once_more_for_each_bracket(plan, name):
    calls = Counter()
    layers = [partial(count_layer, calls, number) for number in range(4)]
    results = []
    for checkpoint in (OURS[name], lambda function, x: function(x)):
        calls.clear()
        x = torch.linspace(0, 1, 5).requires_grad_()
        y = run_plan(plan, layers, x, checkpoint)
        y.sum().backward()
        results.append((y, x.grad))
        assert calls == (runs_of(plan) if checkpoint is OURS[name] else Counter(range(4)))
    assert all(map(torch.equal, *results))


def test_hooks_skip_the_run_of_a_bracket_at_the_end_of_another():
    """The outer one has all it saved, the inner one's input, before the inner one runs."""
    plan = ((0, (1, 2)),)
    for name, expected in ("function", {0: 2, 1: 3, 2: 3}), ("hooks", {0: 2, 1: 2, 2: 2}):
        calls = Counter()
        layers = [partial(count_layer, calls, number) for number in range(3)]
        run_plan(plan, layers, torch.ones(2).requires_grad_(), OURS[name]).sum().backward()
        assert calls == expected
    assert runs_of(plan) == {0: 2, 1: 3, 2: 3}


def test_what_is_known_about_a_plan():
    assert runs_of((((0, 1), 2), 3)) == {0: 3, 1: 3, 2: 2, 3: 1}
    assert layers_of((((0, 1), 2), 3)) == [0, 1, 2, 3]
    assert runs_of(()) == {} and layers_of(()) == []


def test_a_model_runs_by_the_plan_inside_the_block_and_as_ever_after_it():
    model = build_gpt(CONFIG)
    tokens_BT, _ = batch_for(CONFIG, 2)
    names, blocks, calls = [name for name, _ in model.named_parameters()], model.blocks, []

    def checkpoint(function, x):
        calls.append(function)
        return function(x)

    with checkpointed(model, ((0, 1), 2, (3,)), checkpoint):
        model.eval()
        inside = model(tokens_BT)
        assert [name for name, _ in model.named_parameters()] == names
        assert len(model.blocks) == 4 and model.blocks[2] is blocks[2]
        assert len(calls) == 2
    assert model.blocks is blocks and not blocks[0].training
    assert torch.equal(model(tokens_BT), inside) and len(calls) == 2


def test_an_error_inside_leaves_the_model_as_it_was():
    model = build_gpt(CONFIG)
    blocks = model.blocks
    with pytest.raises(ZeroDivisionError), checkpointed(model, (0, 1, (2, 3))):
        raise ZeroDivisionError
    assert model.blocks is blocks


def test_backward_may_run_after_the_block_and_on_a_copy_made_inside():
    model = build_gpt(CONFIG).eval()
    tokens_BT, _ = batch_for(CONFIG, 2)
    with checkpointed(model, ((0, 1, 2, 3),)):
        twin = copy.deepcopy(model)
        loss = model(tokens_BT).square().mean()
        other_loss = twin(tokens_BT).square().mean()
    loss.backward()
    other_loss.backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert one is not other and torch.equal(one.grad, other.grad)


def test_a_second_plan_inside_takes_the_place_of_the_first():
    model, calls = build_gpt(CONFIG), Counter()

    def counting(name, function, x):
        calls[name] += 1
        return function(x)

    tokens_BT, _ = batch_for(CONFIG, 2)
    with checkpointed(model, ((0, 1, 2, 3),), partial(counting, "outer")):
        with checkpointed(model, ((0,), (1,), (2,), 3), partial(counting, "inner")):
            model(tokens_BT)
        model(tokens_BT)
    assert calls == {"inner": 3, "outer": 1}


def test_the_same_block_may_stand_in_the_model_several_times():
    model = build_gpt(CONFIG).eval()
    model.blocks = nn.ModuleList([model.blocks[0]] * 3)
    tokens_BT, _ = batch_for(CONFIG, 2)
    gradients = []
    for plan in ((0, 1, 2), ((0,), (1, 2))):
        model.zero_grad()
        with checkpointed(model, plan):
            model(tokens_BT).square().mean().backward()
        gradients.append(model.blocks[0].feed_forward.widen.weight.grad.clone())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("plan", [(0, 1, 2), (0, 1, 2, 3, 4), ((1, 0), 2, 3), (0, 0, 1, 2), ()])
def test_a_plan_for_another_model_is_refused(plan):
    with (
        pytest.raises(ValueError, match=r"has 4 blocks: name each one once, from 0 on"),
        checkpointed(build_gpt(CONFIG), plan),
    ):
        pass
