"""What lab 06's hooks are judged by: a model with two paths on real ranks, and in one process.

How it works: the answer's messages go over a `LateLink`. A hook of the trial's own, registered
before those of the answer, notes each gradient in the link's log as it is finished. The truth adds
up the gradients of all ranks' batches in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.checks.helpers import require
from utils.checks.late_link import LateLink, Log
from utils.ranks.ledger import TrafficLedger

NUM_INPUTS, BATCH_SIZE = 4, 3  # sequences of one rank
LEFT_RIGHT, RIGHT_LEFT, LEFT = ("left", "right"), ("right", "left"), ("left",)


class TwoPaths(nn.Module):
    """Layers that a batch passes in its own order; tied weights, a frozen scale, a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.scale = nn.Parameter(1 + torch.rand(NUM_INPUTS), requires_grad=False)
        self.first, self.left, self.right, self.last = (
            nn.Linear(NUM_INPUTS, NUM_INPUTS) for _ in range(4)
        )
        self.last.weight = self.first.weight
        self.register_buffer("shift", torch.rand(NUM_INPUTS))

    def forward(self, x_BD: Tensor, path: Sequence[str]) -> Tensor:
        """x_BD -> a loss."""
        x_BD = torch.tanh(self.first(x_BD))
        for name in path:
            x_BD = torch.tanh(getattr(self, name)(x_BD)) * self.scale
        return (self.last(x_BD) + self.shift).square().sum()


@dataclass(frozen=True)
class Step:
    """One training step: the path of each rank's batch; the last path is that of all others."""

    name: str
    paths: tuple[tuple[str, ...], ...]

    def path(self, rank: int) -> tuple[str, ...]:
        """The path of this rank's batch."""
        return self.paths[min(rank, len(self.paths) - 1)]


SAME_ORDER = Step("all go left, then right", (LEFT_RIGHT,))
OTHER_ORDER = Step("rank 1 goes right, then left", (LEFT_RIGHT, RIGHT_LEFT, LEFT_RIGHT))
UNUSED = Step("rank 1 goes left only", (LEFT_RIGHT, LEFT, LEFT_RIGHT))
EASY_STEPS = (SAME_ORDER, SAME_ORDER)
ORDER_STEPS = (OTHER_ORDER,)
HARD_STEPS = (UNUSED, OTHER_ORDER, SAME_ORDER)


@dataclass
class StepRun:
    """What one rank had after finish()."""

    gradients: dict[str, Tensor | None]
    log: Log


@dataclass
class OverlapRun:
    """What one rank did with the answer."""

    start: dict[str, Tensor]  # weights and buffers right after the answer was called
    steps: list[StepRun]
    own_calls: dict[str, int]  # collectives that did not go through start_sum
    real: dict[str, Tensor | None]  # gradients of the first step over real asynchronous sums


def inputs_BD(step: int, rank: int) -> Tensor:
    """A rank's batch in a step."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(BATCH_SIZE, NUM_INPUTS, generator=generator)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all runs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=0.05, momentum=0.9)


def gradients_of(model: nn.Module) -> dict[str, Tensor | None]:
    """Copies of all gradients by name."""
    named = model.named_parameters()
    return {n: None if p.grad is None else p.grad.detach().clone() for n, p in named}


@dataclass
class StepTruth:
    """The gradients of each rank's batch by name; zeros where a batch does not use a weight."""

    by_rank: list[dict[str, Tensor]]

    @property
    def mean(self) -> dict[str, Tensor]:
        """The mean over ranks."""
        return {
            name: torch.stack([each[name] for each in self.by_rank]).mean(0)
            for name in self.by_rank[0]
        }


def one_process(steps: Sequence[Step], world_size: int) -> list[StepTruth]:
    """The same steps without ranks."""
    model = TwoPaths(seed=0)
    optimizer, truths = make_optimizer(model), []
    for number, step in enumerate(steps):
        by_rank = []
        for rank in range(world_size):
            model.zero_grad()
            model(inputs_BD(number, rank), step.path(rank)).backward()
            named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
            by_rank.append({n: 0 * p.detach() if p.grad is None else p.grad for n, p in named})
        truths.append(StepTruth(by_rank))
        for name, gradient in truths[-1].mean.items():
            model.get_parameter(name).grad = gradient
        optimizer.step()
    return truths


def sending_order() -> list[str]:
    """Names of all weights that are trained, the last one first."""
    named = TwoPaths(seed=0).named_parameters()
    return [name for name, parameter in named if parameter.requires_grad][::-1]


def overlap_trial(
    rank: int, world_size: int, answer: Callable, steps: Sequence[Step]
) -> OverlapRun:
    """Train on the late link, then one step over real sums."""
    model = TwoPaths(seed=rank)
    link = LateLink(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            note = lambda p, name=name: link.log.note("finished", name)  # noqa: E731
            parameter.register_post_accumulate_grad_hook(note)
    finish = answer(model, world_size, link.start_sum)
    likely = "the function ends without a return" if finish is None else "return finish, uncalled"
    require(callable(finish), "The function must return `finish`", got=finish, likely=likely)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with TrafficLedger() as ledger:
        runs = _train(model, link, finish, steps, rank)
    calls = dict(ledger.calls)
    calls["all_reduce"] = calls.get("all_reduce", 0) - sum(m.is_summed for m in link.messages)
    own_calls = {kind: number for kind, number in calls.items() if number}
    return OverlapRun(start, runs, own_calls, _real(rank, world_size, answer, steps[0]))


def _train(
    model: nn.Module, link: LateLink, finish: Callable, steps: Sequence[Step], rank: int
) -> list[StepRun]:
    optimizer, runs = make_optimizer(model), []
    for number, step in enumerate(steps):
        link.log = Log()
        model(inputs_BD(number, rank), step.path(rank)).backward()
        link.log.note("end of backward")
        finish()
        runs.append(StepRun(gradients_of(model), link.log))
        optimizer.step()
        optimizer.zero_grad()
    return runs


def _real(
    rank: int, world_size: int, answer: Callable, step: Step
) -> dict[str, Tensor | None]:
    """The first step with gloo's own asynchronous sums."""
    model = TwoPaths(seed=rank)
    finish = answer(model, world_size, lambda tensor: dist.all_reduce(tensor, async_op=True))
    model(inputs_BD(0, rank), step.path(rank)).backward()
    finish()
    return gradients_of(model)
