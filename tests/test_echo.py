"""The echo layer tells the order of work, whatever runs it, and changes no number."""

import pytest
import torch

from utils.echo import Echo, order_of_work
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks

PLAIN = "f1 f2 f3 b3 b2 b1"
ORDERS = {
    (0, 1, 2): (PLAIN, PLAIN),
    ((0, 1, 2),): ("f1 f2 f3 f1+ f2+ f3+ b3 b2 b1",) * 2,
    ((0,), (1,), (2,)): ("f1 f2 f3 f3+ b3 f2+ b2 f1+ b1",) * 2,
    (0, (1, 2)): ("f1 f2 f3 f2+ f3+ b3 b2 b1",) * 2,
    # With an early stop the outer second run ends where the inner part has its input back.
    ((0, (1, 2)),): (
        "f1 f2 f3 f1+ f2+ f3+ f2+ f3+ b3 b2 b1",
        "f1 f2 f3 f1+ f2+ f3+ b3 b2 b1",
    ),
}


def said(plan, checkpoint):
    """The order of work in short: `f1+` stands for "forward 1 again"."""
    text = order_of_work(plan, checkpoint).replace(" again", "+").replace(",", "")
    return text.replace("forward ", "f").replace("backward ", "b")


@pytest.mark.parametrize("plan", ORDERS)
def test_the_order_of_work(plan):
    by_function, by_hooks = ORDERS[plan]
    assert said(plan, checkpoint_by_function) == by_function
    assert said(plan, checkpoint_by_hooks) == by_hooks


def test_it_prints_and_starts_anew_after_backward(capsys):
    layer, x = Echo(7), torch.ones(1, requires_grad=True)
    for _ in range(2):
        layer(x).backward()
    assert capsys.readouterr().out == "forward 7\nbackward 7\n" * 2


def test_numbers_pass_through_unchanged():
    x = torch.linspace(-1, 1, 5, requires_grad=True)
    y = Echo(1, torch.exp, say=lambda line: None)(x)
    y.sum().backward()
    assert torch.equal(y, x.exp())
    assert torch.equal(x.grad, x.exp())


def test_without_gradients_there_is_no_backward():
    lines = []
    layer = Echo(1, say=lines.append)
    with torch.no_grad():
        layer(torch.ones(1, requires_grad=True))
    layer(torch.ones(1, requires_grad=True)).backward()
    assert lines == ["forward 1", "forward 1 again", "backward 1"]
