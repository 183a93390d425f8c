"""Both checkpoints on small functions: whatever goes in and comes out, each error in words."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.checkpoint_cases import OURS, leaf

BOTH = pytest.mark.parametrize("checkpoint", OURS.values(), ids=OURS)


def plainly(function, *args, **kwargs):
    return function(*args, **kwargs)


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 4))


@BOTH
def test_keyword_arguments_nested_tensors_and_other_objects(checkpoint):
    def function(scale, pairs, *, name, masks, start=None):
        (a, b), c = pairs
        assert name == "x" and start is None
        return {"product": a * b.sin() * scale, "mask": masks["low"], "all": [c.exp(), (3, c > 0)]}

    results = []
    for run in (plainly, checkpoint):
        a, b, c = leaf(1, 2), leaf(3, 4), leaf(-5, 6)
        mask = torch.tensor([True, False])
        out = run(function, 2.0, [(a, b), c], name="x", masks={"low": mask})
        assert out["all"][1][0] == 3 and out["all"][1][1].dtype == torch.bool
        assert not out["all"][1][1].requires_grad and torch.equal(out["mask"], mask)
        (out["product"].sum() + out["all"][0].square().sum()).backward()
        results.append([out["product"], *(x.grad for x in (a, b, c))])
    assert all(map(torch.equal, *results))


@BOTH
def test_outputs_that_are_inputs_or_the_same_or_views_of_each_other(checkpoint):
    results = []
    for run in (plainly, checkpoint):
        x = leaf(1, 2, 3)
        same, once, twice, part = run(lambda x: (x, y := x * x, y, y[1:]), x)
        assert torch.equal(once, twice) and torch.equal(part, x[1:] ** 2) and torch.equal(same, x)
        (same.exp().sum() + 2 * once.sum() + 3 * twice.sum() + part.sum()).backward()
        results.append(x.grad)
    assert torch.equal(*results)


@BOTH
def test_an_output_may_be_changed_in_place(checkpoint):
    results = []
    for run in (plainly, checkpoint):
        x = leaf(1, -2, 3)
        y, z = run(lambda x: (x * 3, x.exp() * 2), x)
        y.relu_()
        z += 1
        (y * z.detach()).sum().backward()
        results.append(x.grad)
    assert torch.equal(*results)


@BOTH
def test_a_weight_or_a_buffer_that_comes_out_stays_what_it_was(checkpoint):
    weight, buffer, x = leaf(2, 3), torch.ones(2), leaf(4, 5)
    product, same, also = checkpoint(lambda x: (x * weight, weight, buffer), x)
    assert weight.is_leaf and weight.grad_fn is None
    assert buffer.is_leaf and not buffer.requires_grad
    (product + 10 * same + also).sum().backward()
    assert weight.grad.tolist() == [14, 15] and x.grad.tolist() == [2, 3]


@BOTH
def test_a_function_of_no_tensors_and_one_that_returns_none(checkpoint):
    assert checkpoint(lambda: 3) == 3
    assert checkpoint(lambda x: None, leaf(1)) is None
    assert checkpoint(lambda: torch.ones(2)).tolist() == [1, 1]


@BOTH
def test_unused_outputs_and_outputs_without_a_gradient(checkpoint):
    x, y = leaf(1, 2), leaf(0, 4)
    used, unused, fixed = checkpoint(lambda x, y: (x * y, y.sqrt(), y.detach() * 2), x, y)
    (used + fixed).sum().backward()  # a gradient of zero for the root of zero would make a nan
    assert x.grad.tolist() == [0, 4] and y.grad.tolist() == [1, 2]
    del unused


@BOTH
def test_weights_get_their_gradients_though_no_input_needs_one(checkpoint):
    model, x = layers(), torch.randn(3, 4)
    results = []
    for run in (plainly, checkpoint):
        model.zero_grad()
        torch.manual_seed(1)
        run(model, x).square().sum().backward()
        results.append([p.grad.clone() for p in model.parameters()])
    assert all(map(torch.equal, *results)) and x.grad is None


@BOTH
def test_integers_go_in_and_come_out(checkpoint):
    table, tokens = nn.Embedding(5, 2), torch.tensor([1, 1, 4])
    rows, best = checkpoint(lambda t: (table(t), table(t).argmax(-1)), tokens)
    rows.sum().backward()
    assert table.weight.grad.sum(1).tolist() == [0, 4, 0, 0, 2]
    assert best.dtype == torch.int64 and not best.requires_grad


@BOTH
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_a_plain_call(checkpoint, guard):
    calls, results = [], []

    def function(x):
        calls.append(torch.is_grad_enabled())
        results.append(x * 2)
        return results

    with guard():
        assert checkpoint(function, leaf(1)) is results
    assert calls == [False] and results[0].grad_fn is None


@BOTH
def test_backward_twice_through_a_kept_graph(checkpoint):
    model, x = layers(), torch.randn(3, 4).requires_grad_()
    y = checkpoint(model, x)
    gradients = []
    for keep in (True, False):
        y.sum().backward(retain_graph=keep)
        gradients.append([x.grad, *(p.grad for p in model.parameters())])
        x.grad = None
        model.zero_grad()
    assert all(map(torch.equal, *gradients))
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


@BOTH
def test_inputs_changed_in_place_are_refused_inside_and_noticed_outside(checkpoint):
    x = leaf(1, 2) * 1
    with pytest.raises(RuntimeError, match="changed one of its inputs in place"):
        checkpoint(lambda x: x.mul_(3).square(), x)
    y = checkpoint(torch.square, x)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@BOTH
def test_a_tensor_changed_in_place_that_backward_needs_is_noticed(checkpoint):
    def function(x):
        y = x.exp()
        z = y.square()
        y.add_(1)  # square wants y as it was
        return z * x

    with pytest.raises(RuntimeError, match=r"modified by an inplace|changed a tensor in place"):
        checkpoint(function, leaf(1, 2)).sum().backward()


@BOTH
def test_in_place_operations_that_hurt_nobody_are_welcome(checkpoint):
    results = []
    for run in (plainly, checkpoint):
        x = leaf(-1, 2)
        run(lambda x: (x * 3).add_(1).relu_().sin(), x).sum().backward()
        results.append(x.grad)
    assert torch.equal(*results)


@BOTH
def test_an_error_in_either_run_comes_through_and_harms_nothing(checkpoint):
    fail = {"first": True, "again": False}

    def function(x):
        y = F.dropout(x.exp(), 0.5)
        if fail["first"] or (fail["again"] and torch.is_grad_enabled()):
            raise ZeroDivisionError("on purpose")
        return y.sin()

    x = leaf(*range(50))
    with pytest.raises(ZeroDivisionError):
        checkpoint(function, x)
    fail["first"] = False
    y = checkpoint(function, x)
    fail["again"], before = True, torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        y.sum().backward(retain_graph=True)
    assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled()
    fail["again"] = False
    y.sum().backward()
    assert x.grad.isfinite().all() and x.grad.count_nonzero() > 10
