"""Judge of lab 05, the programs: order of runs, gradients, what is alive, peak bytes."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import require
from utils.checks.truth_05 import torch_left_alone
from utils.checks.truth_05_actions import (
    Action,
    Answer,
    Run,
    Watch,
    chain,
    execute,
    programs,
    runs_of_program,
    watched,
)
from utils.memory import MemoryMeter
from utils.plots import bytes_text

SLACK_BYTES = 1024  # numbers and the like; the smallest tensor of the chain has 4,096 bytes


@exercise(
    "05.3",
    "run a program",
    hints=[
        "Three names carry everything: a dictionary of stored inputs, the current tensor, and the "
        "gradient that comes from the layer above. Which actions run without a graph, and which "
        "names must die after a backward?",
        "backward: leaf = current.detach().requires_grad_(); run the layer on it under "
        "torch.enable_grad(); torch.autograd.backward(output, gradient), where gradient is None "
        "for the loss; then leaf.grad is the next gradient. Delete output and leaf, or do this in "
        "a function of its own, whose names die when it returns.",
    ],
    seconds=60,
    lab="lab_05_choosing_what_to_keep",
)
def judge_programs(answer: Answer) -> str:
    """Four programs, one of which no brackets could say."""
    require_function(answer)
    for name, actions in programs().items():
        peak, budget = _require_program(answer, name, tuple(actions))
    num_runs = len(runs_of_program(actions))
    return (
        f"Loss and gradients equal in every bit in {len(programs())} programs; the last one has "
        f"{num_runs} runs and took {bytes_text(peak)} of {bytes_text(budget)}."
    )


@cache
def _plain() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, gradient of the input and gradients of the weights, added to ones."""
    layers, x = _fresh_chain()
    leaf = x.clone().requires_grad_()
    loss = nn.Sequential(*layers)(leaf)
    loss.backward()
    return loss.detach(), leaf.grad, _gradients(layers)


def _fresh_chain() -> tuple[list[nn.Module], Tensor]:
    """The chain with gradients of an earlier micro-batch: ones."""
    layers, x = chain()
    for parameter in nn.ModuleList(layers).parameters():
        parameter.grad = torch.ones_like(parameter)
    return layers, x


def _gradients(layers: Sequence[nn.Module]) -> list[Tensor]:
    return [parameter.grad for layer in layers for parameter in layer.parameters()]


@cache
def _budget_bytes(actions: tuple[Action, ...]) -> int:
    return _measure(execute, actions)[0] + SLACK_BYTES


def _measure(
    answer: Answer, actions: tuple[Action, ...]
) -> tuple[int, object, list[nn.Module], Watch]:
    """Peak bytes above weights, gradients and input, the result, the layers, and the watch."""
    layers, x = _fresh_chain()
    ours, watch = watched(layers)
    with MemoryMeter(*layers) as meter:
        meter.label("temporary", x)
        meter.mark("start")
        result = answer(list(actions), ours, x)
    report = meter.report()
    return report.peak_bytes - sum(report.at_mark("start").values()), result, layers, watch


def _require_program(answer: Answer, name: str, actions: tuple[Action, ...]) -> tuple[int, int]:
    budget_bytes = _budget_bytes(actions)
    with torch_left_alone():
        peak_bytes, result, layers, watch = _measure(answer, actions)
    where = f"Program '{name}'"
    expected = runs_of_program(actions)
    _require_runs(where, watch.runs, expected)
    _require_values(where, result, layers)
    for step, (run, right) in enumerate(zip(watch.runs, expected, strict=True)):
        extra = run.alive - right.alive - {len(layers)}
        _require_gone(where, f"when layer {run.layer} runs", extra, _before(actions, step))
    _require_gone(where, "at the end", watch.alive() - {len(layers)}, actions)
    likely = "a copy, an old gradient or an old graph is alive while a layer runs"
    what = f"{where} took {peak_bytes:,} bytes of a budget of {budget_bytes:,}"
    require(peak_bytes <= budget_bytes, what, likely=likely)
    return peak_bytes, budget_bytes


def _before(actions: Sequence[Action], step: int) -> Sequence[Action]:
    """The actions before run number `step`."""
    places = [k for k, (action, _) in enumerate(actions) if action in ("advance", "backward")]
    return actions[: places[step]]


def _require_runs(where: str, runs: Sequence[Run], expected: Sequence[Run]) -> None:
    got, right = [run.layer for run in runs], [run.layer for run in expected]
    what = f"{where} ran {len(got)} layers in the order {got}, not {len(right)} in {right}"
    more = len(got) > len(right)
    likely = "an action runs its own layer once, and no other" if more else "an action was left out"
    require(got == right, what, likely=likely if len(got) != len(right) else "")
    for run, ordered in zip(runs, expected, strict=True):
        likely = "advance runs under torch.no_grad(), or it keeps all that a backward would need"
        needless = run.has_graph and not ordered.has_graph
        require(not needless, f"{where}: layer {run.layer} advanced with a graph", likely=likely)


def _require_values(where: str, result: object, layers: Sequence[nn.Module]) -> None:
    """Loss and gradients equal those of the plain step in every bit."""
    loss, input_gradient, gradients = _plain()
    is_pair = isinstance(result, (tuple, list)) and len(result) == 2
    is_pair = is_pair and all(isinstance(each, Tensor) for each in result)
    require(is_pair, f"{where} must return the loss and the gradient of x", got=result)
    got_loss, got_gradient = result
    require(torch.equal(got_loss, loss), f"{where}: the loss is wrong", loss, got_loss)
    likely = "return loss.detach(): a graph would stay with it"
    require(not got_loss.requires_grad, f"{where}: the loss comes with its graph", likely=likely)
    got = _gradients(layers)
    names = [name for name, _ in nn.Sequential(*layers).named_parameters()]
    for number in reversed(range(len(names))):  # the way of the gradient
        if got[number] is None or not torch.equal(got[number], gradients[number]):
            layer = names[number].split(".")[0]
            likely = _gradient_mistake(got, gradients, number)
            require(False, f"{where}: the gradient of layer {layer} is wrong", likely=likely)
    likely = "it is the grad of the first layer's input"
    same = torch.equal(got_gradient, input_gradient)
    require(same, f"{where}: the gradient of x is wrong", likely=likely)


def _gradient_mistake(got: list, gradients: list[Tensor], number: int) -> str:
    """Why gradient `number` is wrong, where those behind it are right."""
    mine, right = got[number], gradients[number]
    if mine is None or torch.allclose(mine, right - 1, rtol=1e-3, atol=1e-6):
        return "backward adds to what .grad holds from earlier micro-batches: leave that there"
    if torch.equal(mine, torch.ones_like(mine)):
        return "no gradient reached it: run its backward action with a graph"
    if torch.allclose(mine - 1, 2 * (right - 1), rtol=1e-2, atol=1e-6):
        return "backward ran twice"
    if number < len(got) - 4:  # not the loss's layer
        return "hand the gradient of the layer above on: torch.autograd.backward(output, gradient)"
    return ""


def _require_gone(where: str, when: str, extra: frozenset[int], before: Sequence[Action]) -> None:
    """Name a tensor that is alive although neither stored nor current."""
    if not extra:
        return
    number = max(extra)
    likely = "only `store` keeps a tensor; what an advance leaves behind must die"
    what = f"{where}: {when}, input {number} of the chain is alive although it is not stored"
    if {("backward", number - 1), ("backward", number)} & set(before):
        likely = (
            "the backward run that needed it is over: delete the names that hold it (leaf, output, "
            "a list), or do the action in a function of its own"
        )
    if ("drop", number) in before:
        what = f"{where}: {when}, input {number} of the chain is alive although it was dropped"
        likely = "drop must delete it, and no other name, list or graph may hold it"
    require(False, what, likely=likely)
