"""Selective checkpointing: what is kept must come back in order, once, unchanged, or not at all."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.checkpoint_cases import leaf
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.selective import checkpoint_keeping, keep_products

aten = torch.ops.aten
RANDOM = [aten.native_dropout.default, aten.rand_like.default, aten.bernoulli.p]


@pytest.mark.parametrize("kept", [RANDOM, [], *([one] for one in RANDOM), RANDOM[:2], RANDOM[1:]])
def test_a_kept_random_operation_beside_ones_that_are_computed_again(kept):
    """The others must draw what they drew at first, although the kept one does not draw again."""
    results, again = [], []

    def function(x):
        y, _ = torch.native_dropout(x.exp(), 0.5, True)
        noise = torch.rand_like(x)
        mask = x.detach().bernoulli(0.5)
        y = F.dropout(y * noise, 0.3) * mask
        again.append((mask, noise))
        return y.sin()

    for run in (lambda f, x: f(x), checkpoint_keeping(lambda operation: operation in kept)):
        torch.manual_seed(3)
        x = torch.linspace(0, 1, 100).requires_grad_()
        run(function, x).sum().backward()
        results.append([x.grad, torch.rand(1)])
    assert all(map(torch.equal, *results))
    assert all(map(torch.equal, again[1], again[2]))


def test_results_come_back_in_the_order_in_which_they_were_made():
    model = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(6, 6), nn.Tanh())))
    results = []
    for run in (lambda f, x: f(x), checkpoint_keeping(keep_products)):
        model.zero_grad()
        x = torch.linspace(-1, 1, 6).repeat(2, 1).requires_grad_()
        run(model, x).square().sum().backward()
        results.append([x.grad, *(p.grad.clone() for p in model.parameters())])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("last", [torch.sin, torch.neg], ids=["all used", "the last one unused"])
def test_a_second_backward_computes_all_again_and_is_right(last):
    """Torch refuses here: the kept results went with the first."""
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), torch.ones(2, 6)
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    y = checkpoint_keeping(keep_products)(lambda x: last(model(x)), x)
    gradients = []
    for _ in range(3):
        model.zero_grad()
        y.sum().backward(retain_graph=True)
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(map(torch.equal, gradients[0], gradients[1])) and len(calls) == 4
    assert all(map(torch.equal, gradients[0], gradients[2]))


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_kept_result_that_was_changed_in_place_is_refused(where):
    layer, x = nn.Linear(3, 3), torch.randn(2, 3).requires_grad_()
    keeping = checkpoint_keeping(keep_products)
    if where == "inside":
        y = keeping(lambda x: layer(x).relu_().exp(), x)
    else:
        z, y = keeping(lambda x: (z := layer(x), z.sin().exp()), x)
        z.add_(1)
    with pytest.raises(RuntimeError, match="selective checkpoint keeps was changed in place"):
        y.sum().backward()


@pytest.mark.parametrize("inner", [keep_products, None])
@pytest.mark.parametrize("outer", [checkpoint_by_function, checkpoint_by_hooks, keep_products])
def test_nested_with_any_other(outer, inner):
    """A run of the outer one for the inner one's sake must not take the inner one's results."""
    outer = checkpoint_keeping(outer) if outer is keep_products else outer
    inner = checkpoint_keeping(inner) if inner else checkpoint_by_hooks
    layers = [nn.Linear(4, 4) for _ in range(3)]
    results = []
    for outer_run, inner_run in ((lambda f, x: f(x),) * 2, (outer, inner)):
        for layer in layers:
            layer.zero_grad()
        x = torch.linspace(-1, 1, 8).view(2, 4).requires_grad_()

        def part(x):
            return layers[2](layers[1](x).tanh()).exp()

        def whole(x):
            return inner_run(part, layers[0](x).sin()).cos()  # noqa: B023

        outer_run(whole, x).sum().backward()
        results.append([x.grad, *(p.grad.clone() for m in layers for p in m.parameters())])
    assert all(map(torch.equal, *results))


def test_views_and_changes_in_place_are_made_again_whatever_the_policy_says():
    x, keep = leaf(1, 2, 3), {aten.view.default, aten.t.default, aten.mul_.Tensor}
    y = checkpoint_keeping(keep.__contains__)(lambda x: (x + 0).mul_(3).view(3, 1).t().exp(), x)
    y.sum().backward()
    assert torch.equal(x.grad, 3 * (3 * x.detach()).exp())


def test_a_policy_may_choose_by_counting():
    """Every second product, as when memory allows for some of them: asked in the first run only."""
    model, asked = nn.Sequential(*(nn.Linear(6, 6) for _ in range(5)), nn.Tanh()), []

    def every_second(operation):
        asked.append(operation)
        return operation is aten.addmm.default and asked.count(operation) % 2 == 0

    results = []
    for run in (lambda f, x: f(x), checkpoint_keeping(every_second)):
        model.zero_grad()
        x = torch.linspace(-1, 1, 6).repeat(2, 1).requires_grad_()
        with FlopCounterMode(display=False) as counter:
            run(model, x).square().sum().backward()
        results.append([x.grad, *(p.grad.clone() for p in model.parameters())])
        results.append(counter.get_total_flops())
    assert all(map(torch.equal, results[0], results[2]))
    assert results[3] - results[1] == 3 * 2 * 2 * 6 * 6  # the first, the third and the fifth again
    assert asked.count(aten.addmm.default) == 5
