"""How often a checkpointed function runs, in what order, and in which contexts and threads."""

import threading

import pytest
import torch
from torch.nn import functional as F

from tests.checkpoint_cases import OURS, TORCHS, leaf
from utils.techniques.checkpointing import (
    checkpoint_by_function,
    checkpoint_by_hooks,
    checkpoint_with,
)

BOTH = pytest.mark.parametrize("checkpoint", OURS.values(), ids=OURS)


class Echo:
    """Layers that write down when they run: forward as "a", the gradient's passing as "a'"."""

    def __init__(self):
        self.order = []

    def layer(self, name):
        def run(x):
            self.order.append(name)
            y = x.sin()
            if y.requires_grad:
                y.register_hook(lambda gradient: self.order.append(name + "'"))
            return y.exp()

        return run

    def chain(self, names):
        def run(x):
            for name in names:
                x = self.layer(name)(x)
            return x

        return run


@pytest.mark.parametrize("variant", [*OURS, *TORCHS])
def test_the_order_of_work_is_torchs(variant):
    echo = Echo()
    x = (OURS | TORCHS)[variant](echo.chain("ab"), leaf(1))
    x = (OURS | TORCHS)[variant](echo.chain("cd"), x)
    x.sum().backward()
    assert " ".join(echo.order) == "a b c d c d d' c' a b b' a'"


@BOTH
def test_nested_parts_run_once_for_each_bracket_around_them(checkpoint):
    echo = Echo()

    def outer(x):
        return echo.layer("c")(checkpoint(echo.layer("a"), echo.layer("b")(x)))

    checkpoint(outer, leaf(1)).sum().backward()
    assert [echo.order.count(name) for name in "bac"] == [2, 3, 2]


def test_only_the_hooks_stop_as_soon_as_the_last_saved_tensor_is_back():
    for checkpoint, expected in (checkpoint_by_hooks, 1), (checkpoint_by_function, 2):
        calls = []

        def function(x):
            y = x.exp().sin()
            calls.append("after the last saved tensor")  # noqa: B023
            return y + 1

        checkpoint(function, leaf(1)).sum().backward()
        assert len(calls) == expected


def test_a_function_that_saves_nothing_does_not_run_again():
    calls = []
    x = leaf(1)
    checkpoint_by_hooks(lambda x: calls.append(1) or x + 1, x).sum().backward()
    assert len(calls) == 1 and x.grad.tolist() == [1]


def test_contexts_surround_the_first_run_and_the_further_ones():
    log = []

    class Note:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            log.append("into " + self.name)

        def __exit__(self, *error):
            log.append("out of " + self.name)

    x = leaf(1)
    y = checkpoint_with(Note("first"), Note("again"), lambda x: log.append("run") or x.exp(), x)
    y.backward(retain_graph=True)
    y.backward()
    again = ["into again", "run", "out of again"]
    assert log == ["into first", "run", "out of first", *again, *again]
    log.clear()
    with torch.no_grad():
        checkpoint_with(Note("first"), Note("again"), lambda x: log.append("run") or x.exp(), x)
    assert log == ["run"]


@pytest.mark.parametrize("variant", OURS)
def test_backward_in_another_thread_and_steps_in_several(variant):
    gradients = {}

    def whole(number):
        x = leaf(number, number + 1)
        OURS[variant](lambda x: x.sin().exp(), x).sum().backward()
        gradients[number] = x.grad

    x = leaf(5, 6)
    y = OURS[variant](lambda x: F.dropout(x.sin().exp(), 0.0), x).sum()
    threads = [threading.Thread(target=whole, args=(n,)) for n in range(4)]
    threads.append(threading.Thread(target=y.backward))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gradients[5] = x.grad
    for number, gradient in gradients.items():
        z = leaf(number, number + 1)
        z.sin().exp().sum().backward()
        assert torch.equal(gradient, z.grad)
    assert len(gradients) == 5
