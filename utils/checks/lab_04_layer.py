"""Judge of lab 04, the checkpoint for real layers: values, runs, gradients, bytes, torch.grad."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_04_layer import (
    INPUT_BYTES,
    RealLayer,
    Trial,
    asked_gradients,
    backward,
    draw_after,
    held_bytes,
    plain_bytes,
    plainly,
    true_trial,
)

SLACK_BYTES = 16_384  # a random state or two; one of the inputs has twice as many


@exercise(
    "04.2",
    "a checkpoint for real layers",
    hints=[
        "autograd only sees tensors that are handed to apply() one by one, so hand over all: "
        "positional values, keyword values, weights. backward returns one thing for each of them: "
        "a gradient or None.",
        "In backward: values = saved tensors, detached, with requires_grad_() as in "
        "ctx.needs_input_grad; run them under enable_grad and your replay; then "
        "torch.autograd.grad(results that require grad, what needs a gradient, their gradients, "
        "allow_unused=True). The weights themselves are not detached.",
        "Values that are no tensors cannot go into ctx.save_for_backward: keep "
        "[None if isinstance(v, Tensor) else v for v in values] on ctx, and save None in their "
        "place.",
    ],
    seconds=60,
    lab="lab_04_checkpoint_by_hand",
)
def judge_layer(answer: Callable) -> str:
    """Everything a real layer needs, the likeliest mistakes first."""
    require_function(answer)
    plain = plain_bytes()  # before anything of the learner's runs
    for is_leaf in (True, False):
        _require_run(answer, is_leaf)
    _require_partial(answer)
    _require_simple_layers(answer)
    kept = _require_bytes(answer, plain)
    _require_autograd_grad(answer)
    return (
        f"Every gradient equals the plain run's, the layer ran twice, and {kept:,} of {plain:,} "
        "bytes were kept beside its inputs and results."
    )


def _require_run(answer: Callable, is_leaf: bool) -> None:
    """One forward and one backward against the plain layer."""
    truth, true_results = true_trial(is_leaf)
    trial = Trial(answer, is_leaf)
    results = trial.forward()
    runs = trial.layer.runs
    require(runs, "The layer never ran", likely="call module(*args, **kwargs)")
    for name, lost in (("scale", 1.0), ("memory_shape", None)):
        got = getattr(runs[0], name)
        likely = "hand the keyword arguments on as well"
        require(got != lost, "The first run lost a keyword argument", likely=likely)
    likely = "the second run belongs into backward"
    require(len(runs) == 1, f"The layer ran {len(runs)} times in forward", likely=likely)
    _require_results(results, true_results)
    require(torch.is_grad_enabled(), "Grad mode stays off after the call", likely="use `with`")
    same = trial.next_draw == truth.next_draw
    require(same, "After forward the random numbers outside are others than without a checkpoint")
    backward(trial.loss(results))
    _require_two_runs(len(runs))
    _require_gradients(trial, truth)
    same = torch.rand(1).item() == draw_after(truth)
    likely = "replay inside a block, so that the stream outside goes on after backward"
    require(same, "The second run changed the random numbers outside", likely=likely)


def _require_two_runs(num_runs: int) -> None:
    likely = "a checkpoint that saves everything: keep the inputs, drop the graph"
    require(num_runs > 1, "The layer ran once: what it saved was kept", likely=likely)
    likely = "it recomputes twice: one second run serves all gradients"
    require(num_runs == 2, f"The layer ran {num_runs} times", 2, num_runs, likely)


def _require_results(got: Any, truth: tuple[Tensor, ...]) -> None:
    likely = "return what the module returns: a tuple stays a tuple"
    is_tuple = isinstance(got, tuple) and len(got) == len(truth)
    require(is_tuple, "The layer's three results did not come out", got=got, likely=likely)
    for number, (mine, right) in enumerate(zip(got, truth, strict=True), start=1):
        same = isinstance(mine, Tensor) and torch.equal(mine, right)
        require(same, f"Result {number} differs from the layer's own")
    likely = "go through RunTwice.apply(...), with the tensors as arguments of their own"
    require(got[0].requires_grad, "No gradient can reach the result", likely=likely)


def _require_gradients(trial: Trial, truth: Trial) -> None:
    for name, got in trial.gradients().items():
        right = truth.gradients()[name]
        if right is None:
            good = got is None or not got.any()
            require(good, f"The gradient of {name} should be None", likely="it is frozen or unused")
        elif got is None or not torch.equal(got, right):
            what = f"The gradient of {name} is {'missing' if got is None else 'wrong'}"
            raise NotYet(what, likely=_gradient_mistake(name, got, right))


def _gradient_mistake(name: str, got: Tensor | None, right: Tensor) -> str:
    is_input = name in ("x", "memory_TD")
    if got is not None and torch.allclose(got, 2 * right):
        if is_input:
            return "no detach: the second run's backward adds to .grad, and you return it as well"
        return "it arrives twice: backward() inside adds to .grad; torch.autograd.grad does not"
    if name == "memory_TD":
        return "a keyword's tensor gets a gradient only if apply() is handed it by itself"
    if is_input:
        dropped = "gradients of inputs are dropped: "
        return dropped * (got is None) + "backward must return one for each argument of apply()"
    return "the weights take part in the second run: ask for their gradients, too"


def _require_partial(answer: Callable) -> None:
    """Only one of the results is used."""
    gradients = []
    for call in (plainly, answer):
        trial = Trial(call, True)
        results = trial.forward()
        trial.layer.in_backward = call is answer
        backward(results[1] * 2.0)
        gradients.append(trial.start.grad)
    same = gradients[1] is not None and torch.equal(*gradients)
    require(same, "When only the second result is used, the gradient of x is wrong")


def _require_simple_layers(answer: Callable) -> None:
    """A single result, a first layer whose input is integers, and torch.no_grad()."""
    result = answer(nn.Tanh(), torch.ones(3, requires_grad=True))
    likely = "a module that returns a tensor must give a tensor, not a tuple of one"
    is_tensor = isinstance(result, Tensor)
    require(is_tensor, "A single result came out changed", got=result, likely=likely)
    table = nn.Embedding(5, 4)
    result = answer(table, torch.tensor([3, 1, 3]))
    likely = "its weights need one: hand them to apply() as well"
    what = "A first layer, whose input is integers, gets no gradient"
    require(result.requires_grad, what, likely=likely)
    backward(result.sum())
    counts = None if table.weight.grad is None else table.weight.grad[:, 0].tolist()
    require(counts == [0, 1, 0, 2, 0], "The gradient of an embedding is wrong")
    layer = RealLayer()
    with torch.no_grad():
        result = answer(layer, torch.ones(2, 8), torch.tensor([True, True]), scale=0.5)
    once = len(layer.runs) == 1 and not result[0].requires_grad
    require(once, "Under torch.no_grad() the layer should run once, without a graph")


def _require_bytes(answer: Callable, plain: int) -> int:
    """What lives between forward and backward, and what is left after it."""
    kept, left = held_bytes(answer)
    likely = ""
    if kept > 0.9 * plain:
        likely = (
            "the first run's graph is kept although the layer runs again: forward needs no graph, "
            "and nothing but inputs may stay on ctx"
        )
    elif kept >= INPUT_BYTES:
        likely = "inputs are copied or more than inputs is saved: detach() copies nothing"
    what = f"{kept:,} bytes are kept beside inputs and results (plain: {plain:,})"
    require(kept <= SLACK_BYTES, what, likely=likely)
    likely = "a graph leaks: results on ctx hold the ctx that holds them; save inputs only"
    require(left <= SLACK_BYTES, f"{left:,} bytes are still held after backward", likely=likely)
    return kept


def _require_autograd_grad(answer: Callable) -> None:
    """torch.autograd.grad gives the gradients and leaves .grad alone."""
    trial, (truth, _) = Trial(answer, False), true_trial(False)
    loss = trial.loss(trial.forward())
    likely = "hand the weights to apply(), and use torch.autograd.grad, not backward(), inside"
    for name, gradient in asked_gradients(loss, trial.leaves(), likely).items():
        right = truth.gradients()[name]
        good = right is None if gradient is None else torch.equal(
            gradient, torch.zeros_like(gradient) if right is None else right)
        require(good, f"torch.autograd.grad gives a wrong gradient of {name}", likely=likely)
    clean = all(gradient is None for gradient in trial.gradients().values())
    require(clean, "torch.autograd.grad filled some .grad on the way", likely=likely)
    result = answer(nn.Tanh(), torch.ones(2, requires_grad=True))
    is_own = isinstance(result.grad_fn, torch.autograd.function.BackwardCFunction)
    what = "It works, but not by an autograd.Function of yours, the point of this exercise"
    require(is_own, what, likely="a hook version, or torch's own checkpoint, is called")
