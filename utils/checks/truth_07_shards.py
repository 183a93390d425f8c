"""What lab 07's sharded Adam is judged by: what its optimizer is given, the weights, bytes.

How it works: the trial hands the answer a `make_optimizer` that notes what it is given, and what
its gradients are in each step. Adam's epsilon is large, so that a gradient of the wrong size shows.
The truth is Adam on all values in one process. Suffixes: P values of all weights with padding, S
values of a shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from utils.checks.helpers import require
from utils.memory import MemoryMeter
from utils.ranks.ledger import TrafficLedger

NUM_STEPS, LEARNING_RATE, EPSILON = 3, 0.05, 0.5
SLACK_BYTES, SETTLE_S = 256, 0.6


@dataclass(frozen=True)
class Case:
    """Weights by shape; the one at `transposed` does not lie in memory row by row."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    transposed: int | None = None

    @property
    def sizes(self) -> list[int]:
        """Values of each weight."""
        return [torch.Size(shape).numel() for shape in self.shapes]

    @property
    def num_values(self) -> int:
        """Values of all weights, without padding."""
        return sum(self.sizes)

    def shard_values(self, num_ranks: int) -> int:
        """S."""
        return -(-self.num_values // num_ranks)

    def tensors(self, seed: int) -> list[Tensor]:
        """Random tensors of these shapes."""
        generator = torch.Generator().manual_seed(seed)
        made = []
        for place, shape in enumerate(self.shapes):
            is_turned = place == self.transposed
            tensor = torch.randn(shape[::-1] if is_turned else shape, generator=generator)
            made.append(tensor.T if is_turned else tensor)
        return made

    def gradients(self, step: int) -> list[Tensor]:
        """The gradients of a step, the same on all ranks."""
        return self.tensors(seed=1 + step)


CASES = (
    Case("12 values, which divide evenly", ((3, 2), (6,))),
    Case("27 values in five weights", ((5, 3), (), (7,), (3,), (1,)), transposed=0),
    Case("2,010 values in three weights", ((40, 25), (10,), (1000,))),
    Case("fewer values than ranks", ((2,),)),
)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of all values, one tensor after the other."""
    return torch.cat([torch.empty(0), *(each.detach().reshape(-1) for each in tensors)])


def padded(values: Tensor, num_ranks: int) -> Tensor:
    """With zeros up to a multiple of the ranks."""
    return torch.cat([values, torch.zeros(-len(values) % num_ranks)])


def truth_P(case: Case, num_steps: int) -> Tensor:
    """All weights after so many steps of Adam in one process."""
    value_P = nn.Parameter(flat(case.tensors(seed=0)))
    optimizer = plain_adam([value_P])
    for step in range(num_steps):
        value_P.grad = flat(case.gradients(step))
        optimizer.step()
    return value_P.detach()


def plain_adam(tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
    """The optimizer of all runs."""
    return torch.optim.Adam(tensors, lr=LEARNING_RATE, eps=EPSILON)


@dataclass
class Run:
    """What one rank had and did in one case."""

    given: list[Tensor] = field(default_factory=list)  # values of the tensors, flat, by optimizer
    num_late: int = 0  # optimizers made after the first step had begun
    gradients: list[Tensor | None] = field(default_factory=list)  # the optimizer's, by step
    weights: list[Tensor] = field(default_factory=list)  # all weights, flat, after each step
    bytes_sent: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    kept_bytes: int = 0  # besides weights and gradients, after the last step


def shards_trial(rank: int, world_size: int, answer: Callable) -> list[Run]:
    """Run every case through the answer on this rank."""
    return [_run(case, rank, world_size, answer) for case in CASES]


def _run(case: Case, rank: int, world_size: int, answer: Callable) -> Run:
    run = Run()
    with MemoryMeter() as meter:
        weights = [nn.Parameter(tensor) for tensor in case.tensors(seed=0)]
        given = list(weights)
        step = answer(weights, _noting(run), rank, world_size)
        likely = "the function ends without a return" if step is None else "return step, uncalled"
        require(callable(step), "The function must return `step`", got=step, likely=likely)
        run.weights = snapshots = _train(case, run, given, weights, step)
        shown = 4 * case.num_values * (2 + len(snapshots))  # weights, gradients, what was noted
        noted = sum(each.nbytes for each in (*run.given, *run.gradients) if each is not None)
        run.kept_bytes = _settled(
            lambda: meter.report().end_bytes - shown - noted, allowed_bytes(case, world_size)
        )
    return run


def allowed_bytes(case: Case, world_size: int) -> int:
    """What a rank may keep: two moments, the shard and its gradient, and counters of steps."""
    return 4 * 4 * case.shard_values(world_size) + SLACK_BYTES


def _settled(live_bytes: Callable[[], int], allowed: int) -> int:
    """Live bytes, asked again while there are too many: a thread of gloo that has been slow to run
    may hold the tensor of a finished message for a moment."""
    end_s = time.monotonic() + SETTLE_S
    while live_bytes() > allowed and time.monotonic() < end_s:
        time.sleep(0.02)
    return live_bytes()


def _train(
    case: Case, run: Run, given: list[nn.Parameter], weights: list, step: Callable[[], None]
) -> list[Tensor]:
    """`given` are the parameters; `weights` is the list that the answer has, of the same."""
    snapshots = []
    for number in range(NUM_STEPS):
        for weight, gradient in zip(given, case.gradients(number), strict=True):
            weight.grad = gradient
        num_made = len(run.given)
        with TrafficLedger() as ledger:
            step()
        run.num_late += len(run.given) - num_made
        run.bytes_sent, run.calls = ledger.bytes_sent, ledger.calls
        snapshots.append(flat(given))
        likely = "write into the weights (weight.data.copy_), not into the list"
        same = len(weights) == len(given) and all(map(_is, weights, given))
        require(same, "The list holds other tensors afterwards", likely=likely)
    return snapshots


def _noting(run: Run) -> Callable[[Sequence[Tensor]], torch.optim.Optimizer]:
    """A make_optimizer that notes what it is given, and the gradients of each step."""

    def make_optimizer(tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
        likely = "make_optimizer([shard]), as torch's optimizers take it"
        is_list = not isinstance(tensors, Tensor)
        require(is_list, "make_optimizer takes a list of tensors", got=tensors, likely=likely)
        tensors = list(tensors)
        run.given.append(flat(tensors))
        optimizer = plain_adam(tensors)

        def note(*_: object) -> None:
            found = [each.grad for each in tensors]
            is_there = all(each is not None for each in found)
            run.gradients.append(flat(found) if is_there else None)

        optimizer.register_step_pre_hook(note)
        return optimizer

    return make_optimizer


def _is(one: object, other: object) -> bool:
    return one is other
