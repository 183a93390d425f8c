"""What the second run must not do, what may happen to it, and what it must not be used for."""

import pytest
import torch

from tests.checkpoint_cases import OURS, leaf
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks


@pytest.mark.parametrize("handled", [Exception, BaseException])
def test_the_stop_gets_through_handlers_and_clean_up(handled):
    """A function may catch errors; it may even catch everything, and still gets no further."""
    log = []

    def function(x):
        try:
            y = x.exp()
        finally:
            log.append("clean-up")
        try:
            return y.cos()
        except handled as error:
            log.append(type(error).__name__)
            y.exp()  # saves one more
            log.append("went on")
            return y

    x, z = leaf(1, 2), leaf(1, 2)
    checkpoint_by_hooks(function, x).sum().backward()
    assert log == ["clean-up"] * 2 + ["_AllBack"] * (handled is BaseException)
    function(z).sum().backward()
    assert torch.equal(x.grad, z.grad)


@pytest.mark.parametrize("variant", OURS)
def test_a_second_run_that_does_something_else_is_refused(variant):
    others = [lambda x: x[:1].exp(), lambda x: x.double().exp()]
    others += [lambda x: x + 1] if variant == "hooks" else [lambda x: (x.exp(), x)]
    for second in others:
        runs = iter([torch.exp, second])
        y = OURS[variant](lambda x: next(runs)(x), leaf(1, 2))  # noqa: B023
        with pytest.raises(RuntimeError, match="did something else when it ran again"):
            y.sum().backward()


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_the_function_variant_refuses_what_it_would_get_wrong():
    x = leaf(1, 2)
    y = checkpoint_by_function(torch.exp, x).sum()
    for attempt in (
        lambda: torch.autograd.grad(y, x, retain_graph=True),
        lambda: y.backward(inputs=[x], retain_graph=True),
        lambda: y.backward(create_graph=True),
    ):
        with pytest.raises(RuntimeError, match=r"plain backward\(\) only.*checkpoint_by_hooks"):
            attempt()
    assert x.grad is None


def test_a_function_may_ask_for_gradients_itself():
    results = []
    for run in (lambda f, x: f(x), checkpoint_by_hooks):

        def force(x):
            energy = (x**3).sum() + x.prod()
            (slope,) = torch.autograd.grad(energy, x, create_graph=True)
            return slope * x

        x = leaf(1, 2, 3)
        run(force, x).sum().backward()
        results.append(x.grad)
    assert torch.equal(*results)


def test_each_backward_pass_runs_again_also_after_one_that_broke_off():
    """What a broken pass has left must not hide that the input is another one by now."""
    x = leaf(3)
    first, second = checkpoint_by_hooks(lambda x: (x.sin().exp().cos(), x.exp()), x)

    def break_off(gradient):
        raise ZeroDivisionError

    handle = x.register_hook(break_off)
    with pytest.raises(ZeroDivisionError):
        second.backward(retain_graph=True)
    handle.remove()
    with torch.no_grad():
        x.fill_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.backward()
