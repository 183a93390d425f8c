"""What lab 05's judge of programs compares with: programs for a chain, and layers that look around.

How it works: a program is a flat list of actions. `Watched` layers note each run: which layer, with
or without a graph, and which tensors of the chain are alive at that moment, told by weak references
to their storages.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, UntypedStorage, nn

from utils.techniques.schedules import binomial_plan
from utils.techniques.segments import Plan, layers_of

Action = tuple[str, int]
Answer = Callable[[Sequence[Action], Sequence[Callable], Tensor], tuple[Tensor, Tensor]]
WIDTHS, NUM_ROWS = (32, 64, 24, 96, 48, 64, 16), 64


def actions_of(plan: Plan) -> list[Action]:
    """A plan of bracketed parts with one layer at the end, as a program."""
    return [("store", layers_of(plan)[0]), *_part(plan)]


def _part(plan: Plan) -> Iterator[Action]:
    """The actions for a part whose input is stored."""
    *parts, last = plan
    first = layers_of(plan)[0]
    yield "load", first
    for part in parts:
        layers = layers_of(part)
        yield from (("advance", layer) for layer in layers)
        if layers[-1] + 1 != last:
            yield "store", layers[-1] + 1
    yield "backward", last
    for part in reversed(parts):
        yield from _part(part)
        if layers_of(part)[0] != first:
            yield "drop", layers_of(part)[0]


def programs() -> dict[str, list[Action]]:
    """Four programs for a chain of six layers."""
    num_layers = len(WIDTHS) - 1
    return {
        "every input is stored": actions_of((*((k,) for k in range(num_layers - 1)), 5)),
        "two places, after Revolve": actions_of(binomial_plan(num_layers, 2)),
        "always from the start": actions_of(binomial_plan(num_layers, 1)),
        "an input goes early and comes again": _not_nested(),
    }


def _not_nested() -> list[Action]:
    """What no brackets can say: input 2 makes room for input 4, and is made again."""

    def forward(*layers: int) -> list[Action]:
        return [("advance", layer) for layer in layers]

    return [
        ("store", 0), *forward(0, 1), ("store", 2), *forward(2, 3), ("drop", 2), ("store", 4),
        *forward(4), ("backward", 5), ("load", 4), ("backward", 4), ("drop", 4),
        ("load", 0), *forward(0, 1), ("store", 2), *forward(2), ("backward", 3),
        ("load", 2), ("backward", 2), ("drop", 2),
        ("load", 0), *forward(0), ("backward", 1), ("load", 0), ("backward", 0),
    ]  # fmt: skip


def chain() -> tuple[list[nn.Module], Tensor]:
    """Six layers of different widths, the last one a loss, and their input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = [
            nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, after))
            for width, after in pairwise(WIDTHS)
        ]
        x = torch.randn(NUM_ROWS, WIDTHS[0])
    layers[-1].append(_MeanSquare())
    return layers, x


class _MeanSquare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square().mean()


@dataclass(frozen=True)
class Run:
    """One run of a layer: with a graph or without, and the other inputs that were alive then."""

    layer: int
    has_graph: bool
    alive: frozenset[int]  # "input k of the chain", k from 1; the last stands for the loss


@dataclass
class Watch:
    """Runs in their order, and all tensors that went from layer to layer."""

    runs: list[Run] = field(default_factory=list)
    _seen: list[tuple[int, weakref.ref]] = field(default_factory=list)

    def note(self, number: int, tensor: Tensor) -> None:
        """This is input `number` of the chain."""
        storage = tensor.untyped_storage()
        if not any(one() is storage for _, one in self._seen):
            self._seen.append((number, weakref.ref(storage)))

    def alive(self, besides: UntypedStorage | None = None) -> frozenset[int]:
        """The numbers of the inputs that something holds."""
        held = ((number, one()) for number, one in self._seen)
        return frozenset(
            number for number, storage in held if storage is not None and storage is not besides
        )


class Watched:
    """A layer that notes its runs."""

    def __init__(self, number: int, layer: nn.Module, watch: Watch) -> None:
        self._number, self._layer, self._watch = number, layer, watch

    def __call__(self, x: Tensor) -> Tensor:
        """Look around, then run."""
        if self._number:
            self._watch.note(self._number, x)
        alive = self._watch.alive(besides=x.untyped_storage())
        self._watch.runs.append(Run(self._number, torch.is_grad_enabled(), alive))
        output = self._layer(x)
        self._watch.note(self._number + 1, output)
        return output


def watched(layers: Sequence[nn.Module]) -> tuple[list[Watched], Watch]:
    """The layers under watch, and the watch."""
    watch = Watch()
    return [Watched(number, layer, watch) for number, layer in enumerate(layers)], watch


def runs_of_program(actions: Sequence[Action]) -> list[Run]:
    """The runs that a program orders: at each, only stored inputs are alive besides its own."""
    runs, stored = [], set()
    for action, number in actions:
        if action == "store":
            stored.add(number)
        elif action == "drop":
            stored.discard(number)
        elif action in ("advance", "backward"):
            runs.append(Run(number, action == "backward", frozenset(stored - {0, number})))
    return runs


def execute(
    actions: Sequence[Action], layers: Sequence[Callable], x: Tensor
) -> tuple[Tensor, Tensor]:
    """The program, run plainly: what the judge's budget is measured with."""
    stored, current, gradient, loss = {}, x, None, None
    for action, number in actions:
        if action == "store":
            stored[number] = current
        elif action == "load":
            current = stored[number]
        elif action == "drop":
            del stored[number]
        elif action == "advance":
            with torch.no_grad():
                current = layers[number](current)
        else:
            output, gradient = _backward(layers[number], current, gradient)
            loss = output if loss is None else loss
            del output
    return loss, gradient


def _backward(layer: Callable, x: Tensor, gradient: Tensor | None) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        output = layer(leaf)
    torch.autograd.backward(output, gradient)
    return output.detach() if gradient is None else output.new_empty(0), leaf.grad
