"""What lab 06's step on all tokens is judged by: chosen gradients, in fp64 and on real ranks.

How it works: the loss of a micro-batch is linear in the weights, so its gradient is what the case
says. Suffix P: all values of the model in one flat tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from utils.ranks.ledger import TrafficLedger

SHAPES = ((16, 8), (16,))
NUM_VALUES = sum(torch.Size(shape).numel() for shape in SHAPES)
GRADIENT_BYTES = 4 * NUM_VALUES


@dataclass(frozen=True)
class Case:
    """`tokens[rank]` are the sizes of its micro-batches; `apart` is how much ranks differ.

    `max_norm` is in units of the true gradient's norm.
    """

    name: str
    tokens: tuple[tuple[int, ...], ...]
    max_norm_share: float
    apart: float = 1.0
    seed: int = 0

    def parts(self) -> list[list[Tensor]]:
        """The gradient of each micro-batch's summed loss, by rank; flat, fp64."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw() -> Tensor:
            return torch.randn(NUM_VALUES, generator=generator, dtype=torch.float64)

        shared, found = draw(), []
        for sizes in self.tokens:
            own = shared + self.apart * draw()
            found.append([size * (own + draw()) for size in sizes])
        return found

    def mean_P(self) -> Tensor:
        """The gradient of the mean loss per token, not clipped."""
        parts = [part for of_rank in self.parts() for part in of_rank]
        return torch.stack(parts).sum(0) / sum(map(sum, self.tokens))

    @property
    def max_norm(self) -> float:
        """What to clip to."""
        return self.max_norm_share * self.mean_P().norm().item()


EASY_CASES = (
    Case("micro-batches of different sizes, nothing to clip", ((3, 9, 6), (20, 4, 5)), 100),
    Case("a gradient to be clipped", ((8, 8), (8, 8)), 0.5, seed=2),
    Case("large gradients that cancel, nothing to clip", ((8, 8), (8, 8)), 1.1, 6.0, seed=3),
)
HARD_CASES = (
    Case("three, one and two micro-batches", ((5, 2, 6), (11,), (4, 4)), 0.5, seed=4),
    Case("a rank without a micro-batch", ((5, 7), (), (3,)), 0.5, seed=5),
    Case("one micro-batch on each rank, nothing to clip", ((6,), (6,), (6,)), 100, seed=6),
)


class LinearModel(nn.Module):
    """Weights whose loss has the gradient that one wants."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.ones(shape)) for shape in SHAPES)

    def loss_and_tokens(self, gradient_P: Tensor, num_tokens: int) -> tuple[Tensor, int]:
        """A summed loss that has this gradient, and the number that is given."""
        flat_P = torch.cat([parameter.flatten() for parameter in self.parameters()])
        return flat_P @ gradient_P, num_tokens


@dataclass(frozen=True)
class Run:
    """What one rank did in one case; `gradient_P` is what its optimizer saw, None without one."""

    gradient_P: Tensor | None
    num_updates: int
    returned: object
    is_left: bool
    bytes_sent: int


def tokens_trial(
    rank: int, world_size: int, answer: Callable, cases: tuple[Case, ...]
) -> list[Run]:
    """One step for each case, one after the other on the same model."""
    model = LinearModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(_gradient_P(model)))
    runs = []
    for case in cases:
        seen.clear()
        losses = [
            partial(model.loss_and_tokens, part.float(), size)
            for part, size in zip(case.parts()[rank], case.tokens[rank], strict=True)
        ]
        with TrafficLedger() as ledger:
            returned = answer(model, optimizer, losses, case.max_norm)
        is_left = bool(_gradient_P(model).any())
        gradient_P = seen[-1] if seen else None
        runs.append(Run(gradient_P, len(seen), returned, is_left, ledger.bytes_sent))
    return runs


def _gradient_P(model: nn.Module) -> Tensor:
    gradients = [0 * p if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([gradient.detach().flatten() for gradient in gradients]).double()


def clipped(gradient_P: Tensor, max_norm: float) -> Tensor:
    """Scaled down to max_norm if it is longer."""
    norm = gradient_P.norm().item()
    return gradient_P * (max_norm / norm) if norm > max_norm else gradient_P


def clipped_one_by_one(gradient_P: Tensor, max_norm: float) -> Tensor:
    """Each parameter's gradient by its own norm."""
    sizes = [torch.Size(shape).numel() for shape in SHAPES]
    return torch.cat([clipped(part, max_norm) for part in gradient_P.split(sizes)])


_EACH = "each parameter is clipped by itself: the norm of all together counts"


def mistakes(case: Case, rank: int) -> list[tuple[str, Tensor]]:
    """(mistake, the gradient that the optimizer of this rank would see)."""
    limit, mean = case.max_norm, case.mean_P()
    pairs = zip(_sums(case), case.tokens, strict=True)
    means = [total / max(1, sum(sizes)) for total, sizes in pairs]
    before = torch.stack([clipped(each, limit) for each in means]).mean(0)
    totals = _wrong_totals(case, rank, means)
    return [
        ("all-zero gradients agree on every rank, but nothing is learned from them", 0 * mean),
        ("the mean is not clipped", mean),
        *totals,
        *((text, clipped(value, limit)) for text, value in totals),
        ("clipping before averaging: the norm of one rank's part says nothing", before),
        ("a gradient below max_norm stays as it is", mean * limit / mean.norm()),
        (_EACH, clipped_one_by_one(mean, limit)),
        (_EACH, clipped(clipped_one_by_one(mean, limit), limit)),
    ]  # fmt: skip


def _sums(case: Case) -> list[Tensor]:
    """Each rank's sum over its tokens; zero for a rank without any."""
    zero = torch.zeros(NUM_VALUES).double()
    return [sum(each, start=zero) for each in case.parts()]


def _wrong_totals(case: Case, rank: int, means: list[Tensor]) -> list[tuple[str, Tensor]]:
    """(mistake, the gradient before clipping) for sums and means that are the wrong ones."""
    parts, num_ranks, mean = case.parts(), len(case.tokens), case.mean_P()
    sums, zero = _sums(case), torch.zeros(NUM_VALUES).double()
    of_micro = [
        torch.stack([part / size for part, size in zip(each, sizes, strict=True)]).mean(0)
        if each else zero
        for each, sizes in zip(parts, case.tokens, strict=True)
    ]  # fmt: skip
    last = [each[-1] if each else zero for each in parts]
    num_micro, own_tokens = max(1, len(parts[rank])), max(1, sum(case.tokens[rank]))
    all_tokens = sum(map(sum, case.tokens))
    return [
        ("sum instead of mean: divide by the number of all tokens", sum(sums)),
        ("sum instead of mean: the ranks' means are added up", sum(means)),
        ("divided by world_size as well: all tokens are counted already", mean / num_ranks),
        ("divided by the number of micro-batches as well", mean / num_micro),
        ("divided by the number of micro-batches twice", mean / num_micro**2),
        ("a mean of the ranks' means: ranks with few tokens count too much",
         sum(means) / num_ranks),
        ("a mean of the micro-batches' means: small ones count too much",
         torch.stack(of_micro).mean(0)),
        ("the tokens of this rank alone are counted: send their number, too",
         sum(sums) / own_tokens),
        ("the tokens of this rank alone are counted: send their number, too",
         sum(sums) / own_tokens / num_ranks),
        ("nothing of the other ranks has arrived", means[rank]),
        ("nothing of the other ranks has arrived", sums[rank] / all_tokens),
        ("only the last micro-batch counts", sum(last) / all_tokens),
    ]  # fmt: skip
