"""What lab 07's leaving gradients are judged by: messages, shards and memory, on real ranks.

How it works: no two parameters of the model are of one size, so a flat tensor's length tells whose
gradient it carries. Before each message, and when a rank has finished, the ranks tell each other
what they are about to do: where they differ, all of them say so, instead of waiting for each other
for ever. A hook of the trial's own, registered before those of the answer, notes what is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from utils.checks.helpers import NotYet, require
from utils.checks.late_link import Log
from utils.ranks.collectives import all_gather
from utils.ranks.ledger import TrafficLedger
from utils.techniques.ring import ring_reduce_scatter

NUM_INPUTS, BATCH_SIZE = 4, 3
LEFT_RIGHT, RIGHT_LEFT, LEFT = ("left", "right"), ("right", "left"), ("left",)
END, SENT, FINISHED = "end of backward", "sent", "finished"
DIFFER = (
    "each rank sends in the order in which its gradients arrive, or leaves some out: keep one "
    "order on all ranks, the last parameter first, with zeros where a batch gave no gradient"
)
UNUSED = (
    "a parameter that the batch does not use never calls its hook, and the other ranks wait: "
    "finish() sends zeros in its place"
)


class Paths(nn.Module):
    """Layers that a batch passes in its own order, all of different size, one of them frozen."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.first, self.left = weight(7, NUM_INPUTS), weight(7, 7)
        self.scale = nn.Parameter(torch.full((5,), 2.0), requires_grad=False)
        self.right, self.last, self.shift = weight(7), weight(3, 7), weight()

    def forward(self, x_BD: Tensor, path: Sequence[str]) -> Tensor:
        """x_BD -> a loss."""
        x_BD = torch.tanh(x_BD @ self.first.T)
        for name in path:
            x_BD = torch.tanh(x_BD @ self.left if name == "left" else x_BD * self.right)
        return (x_BD @ self.last.T * self.scale[0] + self.shift).square().sum()


@dataclass(frozen=True)
class Step:
    """Micro-batches in turn: the path of each rank; the last path is that of all others."""

    name: str
    micro: tuple[tuple[tuple[str, ...], ...], ...]

    def path(self, number: int, rank: int) -> tuple[str, ...]:
        """The path of this rank in a micro-batch."""
        paths = self.micro[number]
        return paths[min(rank, len(paths) - 1)]


SAME = (LEFT_RIGHT,)
CROSSED, PARTLY = (LEFT_RIGHT, RIGHT_LEFT), (LEFT_RIGHT, LEFT, LEFT_RIGHT)
EASY_STEPS = (Step("all go left, then right", (SAME,)), Step("two micro-batches", (SAME, SAME)))
ORDER_STEPS = (Step("rank 1 goes right, then left", (CROSSED, SAME)),)
HARD_STEPS = (Step("rank 1 goes left only", (PARTLY, SAME)), Step("as before", (CROSSED,)))


def inputs_BD(micro: int, rank: int) -> Tensor:
    """A rank's batch; micro-batches are counted from 0 in each step."""
    generator = torch.Generator().manual_seed(100 * micro + rank)
    return torch.randn(BATCH_SIZE, NUM_INPUTS, generator=generator)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters with gradients, by name, in order."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def shard_values(parameter: Tensor, num_ranks: int) -> int:
    """S, of one parameter."""
    return -(-parameter.numel() // num_ranks)


@dataclass
class StepRun:
    """One step of one rank: its shards by name, and the log of each micro-batch."""

    shards: dict[str, Tensor]
    logs: list[Log] = field(default_factory=list)


@dataclass
class ScatterRun:
    """What one rank did with the answer."""

    steps: list[StepRun]
    own_calls: dict[str, int]  # collectives that did not go through scatter
    kept_bytes: int = 0  # of gradients, when backward has ended


class Wire:
    """`scatter(shard_S, flat_P)`, which compares with the other ranks before it sends."""

    def __init__(self, model: nn.Module, rank: int, world_size: int) -> None:
        self.rank, self.world_size, self.log = rank, world_size, Log()
        self.names = list(trained(model))
        self.sizes = [shard_values(each, world_size) for each in trained(model).values()]
        self.step, self.num_told, self.num_sent = "", 0, 0

    def scatter(self, shard_S: Tensor, flat_P: Tensor) -> None:
        """Put this rank's part of the sum over ranks into shard_S."""
        what = "scatter must get a flat tensor, and of its values an N-th"
        fits = flat_P.dim() == shard_S.dim() == 1
        fits = fits and flat_P.numel() == self.world_size * shard_S.numel()
        shapes = tuple(shard_S.shape), tuple(flat_P.shape)
        likely = "pad each gradient with zeros to world_size * shard_S.numel() values"
        require(fits, f"{what}; they have the shapes {shapes[0]} and {shapes[1]}", likely=likely)
        known = shard_S.numel() in self.sizes
        likely = "one parameter in each message, padded by itself"
        what = f"scatter got {flat_P.numel()} values, which is no parameter with its padding"
        require(known, what, likely=likely)
        self.tell(self.sizes.index(shard_S.numel()))
        ring_reduce_scatter(shard_S, flat_P, self.rank, self.world_size)
        self.log.note(SENT, self.names[self.sizes.index(shard_S.numel())])
        self.num_sent += 1

    def tell(self, place: int) -> None:
        """Compare what all ranks are about to do: to send a parameter, or -1, nothing more."""
        places = torch.empty(self.world_size, dtype=torch.int64)
        all_gather(places, torch.tensor([place]))
        self.num_told += 1
        others = [rank for rank, each in enumerate(places.tolist()) if each != places[0]]
        if others:
            parts = (self._doing(rank, places[rank].item()) for rank in (0, others[0]))
            likely = UNUSED if -1 in places.tolist() else DIFFER
            raise NotYet(f"In the step '{self.step}', {', while '.join(parts)}", likely=likely)

    def _doing(self, rank: int, place: int) -> str:
        return f"rank {rank} " + (f"sends {self.names[place]}" if place >= 0 else "has finished")


def scatter_trial(
    rank: int, world_size: int, answer: Callable, steps: Sequence[Step]
) -> ScatterRun:
    """Run all steps, then look at what a backward leaves in memory."""
    from utils.checks.truth_07_scatter_memory import kept_bytes

    model = Paths()
    wire = Wire(model, rank, world_size)
    for name, parameter in trained(model).items():
        note = lambda p, name=name: _note(wire.log, model, name)  # noqa: E731
        parameter.register_post_accumulate_grad_hook(note)
    parameters = trained(model).values()
    shards = [torch.zeros(shard_values(each, world_size)) for each in parameters]
    finish = answer(model, list(shards), world_size, wire.scatter)
    likely = "the function ends without a return" if finish is None else "return finish, uncalled"
    require(callable(finish), "The function must return `finish`", got=finish, likely=likely)
    with TrafficLedger() as ledger:
        runs = [_step(model, wire, finish, shards, step) for step in steps]
    calls = dict(ledger.calls)
    ours = {"all_gather": wire.num_told, "send": wire.num_sent * (world_size - 1)}
    ours["recv"] = ours["send"]
    own_calls = {kind: n - ours.get(kind, 0) for kind, n in calls.items() if n > ours.get(kind, 0)}
    return ScatterRun(runs, own_calls, kept_bytes(rank, world_size, answer))


def _note(log: Log, model: nn.Module, name: str) -> None:
    """This gradient is finished; those that were sent before and are still there are noted."""
    log.note(FINISHED, name)
    left = [each for each, p in trained(model).items() if p.grad is not None]
    log.touched += [each for each in left if each in log.names(SENT) and each not in log.touched]


def _step(
    model: nn.Module, wire: Wire, finish: Callable, shards: list[Tensor], step: Step
) -> StepRun:
    run, wire.step = StepRun({}), step.name
    for number in range(len(step.micro)):
        wire.log = Log()
        model(inputs_BD(number, wire.rank), step.path(number, wire.rank)).backward()
        wire.log.note(END)
        finish()
        wire.tell(-1)
        left = [name for name, p in trained(model).items() if p.grad is not None]
        wire.log.touched += [name for name in left if name not in wire.log.touched]
        run.logs.append(wire.log)
    run.shards = {n: s.clone() for n, s in zip(trained(model), shards, strict=True)}
    for shard_S in shards:
        shard_S.zero_()
    return run
