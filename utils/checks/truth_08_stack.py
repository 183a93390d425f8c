"""What lab 08's hooks are judged by: a stack of layers on real ranks, and in one process.

How it works: each layer tells the store when it is about to read its weights, in forward and in
backward, between its two products as well. It does so from within its computation, so no hook of a
learner's comes in between. The truth trains the same stack in one process.
Shape suffixes: B batch, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from utils.checks.truth_08_returns import watch_returns
from utils.checks.truth_08_store import (
    BACKWARD,
    END,
    FORWARD,
    TURN,
    Entry,
    LateLane,
    Store,
    tell,
)
from utils.techniques.lane import Lane, ThreadLane

WIDTH, BATCH_SIZE, LEARNING_RATE = 6, 3, 0.1
TRAIN, EVALUATE = "training", "an evaluation"
PASSES = (TRAIN, EVALUATE, TRAIN)
Report = Callable[[str, int], None]


class _Look(torch.autograd.Function):
    """Passes a tensor on; `report` is told of forward and backward, if they are in `moments`."""

    @staticmethod
    def forward(
        ctx: Any, x_BD: Tensor, report: Callable[[str], None], moments: Sequence[str]
    ) -> Tensor:
        ctx.report, ctx.moments = report, moments
        if FORWARD in moments:
            report(FORWARD)
        return x_BD.view_as(x_BD)

    @staticmethod
    def backward(ctx: Any, gradient_BD: Tensor) -> tuple[Tensor, None, None]:
        if BACKWARD in ctx.moments:
            ctx.report(BACKWARD)
        return gradient_BD, None, None


class Layer(nn.Module):
    """Two products; layer k is wider than layer k - 1 inside."""

    def __init__(self, place: int, report: Report) -> None:
        super().__init__()
        shapes = {"widen": (WIDTH, WIDTH + place), "narrow": (WIDTH + place, WIDTH)}
        for name in sorted(shapes, reverse=place % 2 == 0):  # the first parameter is not the last
            self.add_module(name, nn.Linear(*shapes[name]))  # one to get its gradient everywhere
        self.report = lambda what: report(what, place)

    def forward(self, x_BD: Tensor) -> Tensor:
        """x_BD -> x_BD."""
        hidden_BD = torch.tanh(self.widen(_Look.apply(x_BD, self.report, (FORWARD,))))
        hidden_BD = _Look.apply(hidden_BD, self.report, (FORWARD, BACKWARD))
        return _Look.apply(self.narrow(hidden_BD), self.report, (BACKWARD,))


class Stack(nn.Module):
    """Layers, computed in `order`; `store` is told when they read weights."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.order, self.store = tuple(order), None
        self.layers = nn.ModuleList(Layer(k, self._report) for k in range(len(self.order)))

    def _report(self, what: str, place: int) -> None:
        if self.store is not None:
            self.store.computes(what, place)

    def forward(self, x_BD: Tensor) -> Tensor:
        """x_BD -> a loss."""
        for place in self.order:
            x_BD = x_BD + torch.tanh(self.layers[place](x_BD))
        return x_BD.square().mean()


@dataclass
class PassRun:
    """One pass on one rank: what happened, the loss, the gradients of this rank's batch."""

    kind: str
    entries: list[Entry]
    loss: float
    gradients: list[Tensor] = field(default_factory=list)


def inputs_BD(number: int, rank: int) -> Tensor:
    """A rank's batch in a pass."""
    generator = torch.Generator().manual_seed(100 * number + rank)
    return torch.randn(BATCH_SIZE, WIDTH, generator=generator)


def stack_trial(
    rank: int, world_size: int, answer: Callable, order: Sequence[int], ways: Sequence[str]
) -> list[PassRun]:
    """Run the passes for each way: "gather" (08.1), "late" or "thread" (08.2)."""
    return [run for way in ways for run in _one_way(rank, world_size, answer, order, way)]


def _one_way(
    rank: int, world_size: int, answer: Callable, order: Sequence[int], way: str
) -> list[PassRun]:
    lane: Lane | None = {"gather": None, "late": LateLane(), "thread": ThreadLane()}[way]
    model = Stack(order)
    store = Store(model, model.layers, rank, world_size, lane)
    model.store = store
    gather = store.gather if way == "gather" else store.start_gather
    with watch_returns(model.layers):
        answer(list(model.layers), gather, store.free)
        runs = [_one_pass(model, store, kind, number, rank) for number, kind in enumerate(PASSES)]
    store.lane.close()
    return runs


def _one_pass(model: Stack, store: Store, kind: str, number: int, rank: int) -> PassRun:
    store.entries = []
    with torch.set_grad_enabled(kind == TRAIN):
        loss = model(inputs_BD(number, rank))
    gradients = []
    store.note(TURN)
    if kind == TRAIN:
        loss.backward()
        parameters = [each for shard in store.shards for each in shard.unit.parameters]
        gradients = [torch.zeros(0) if p.grad is None else p.grad.clone() for p in parameters]
    store.note(END)
    if isinstance(store.lane, LateLane):
        tell("")
    if kind == TRAIN:
        _update(store)
    return PassRun(kind, store.entries, loss.item(), gradients)


def _update(store: Store) -> None:
    for shard in store.shards:
        shard.start_reduce().wait()
        with torch.no_grad():
            shard.shard_S -= LEARNING_RATE * shard.shard_S.grad
        shard.shard_S.grad = None


@dataclass
class PassTruth:
    """The loss and the gradients of each rank's batch in one pass."""

    losses: list[float]
    gradients: list[list[Tensor]]


def one_process(order: Sequence[int], world_size: int) -> list[PassTruth]:
    """The same passes without ranks."""
    model, truths = Stack(order), []
    for number, kind in enumerate(PASSES):
        truth = PassTruth([], [])
        for rank in range(world_size):
            loss = model(inputs_BD(number, rank))
            truth.losses.append(loss.item())
            truth.gradients.append(list(torch.autograd.grad(loss, list(model.parameters()))))
        truths.append(truth)
        if kind == TRAIN:
            _update_whole(model, truth.gradients)
    return truths


@torch.no_grad()
def _update_whole(model: Stack, gradients: Sequence[Sequence[Tensor]]) -> None:
    for parameter, *each in zip(model.parameters(), *gradients, strict=True):
        parameter -= LEARNING_RATE * torch.stack(each).mean(0)
