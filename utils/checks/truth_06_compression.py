"""What lab 06's 16-bit mean is judged by: its sums over many steps, and what each mistake loses.

How it works: every rank has the same gradient in every step. A rounding that is forgotten then errs
in the same direction each time, and the sum over K steps drifts by K times that; with feedback it
stays within one rounding of each kind. Suffixes: N ranks, K steps, P values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.checks.helpers import require
from utils.ranks.ledger import TrafficLedger

NUM_VALUES, FEW_VALUES, NUM_STEPS = 64, 16, 32
HALF_ULP = 2.0**-8  # the most that one rounding to bf16 loses, as a share of the value


@dataclass(frozen=True)
class Run:
    """What one rank got: from whole numbers, and from the constant gradients in every step."""

    exact_P: Tensor
    results_KP: Tensor
    bytes_sent: int
    kinds: tuple[str, ...]


def whole_numbers_NP(num_ranks: int) -> Tensor:
    """Gradients that bf16 holds exactly, like their mean."""
    generator = torch.Generator().manual_seed(num_ranks)
    return num_ranks * torch.randint(1, 16, (num_ranks, FEW_VALUES), generator=generator).float()


def gradients_NP(num_ranks: int) -> Tensor:
    """Gradients of 24 bits that differ between ranks."""
    generator = torch.Generator().manual_seed(10 + num_ranks)
    shared_P = torch.randn(NUM_VALUES, generator=generator)
    return shared_P + 0.3 * torch.randn(num_ranks, NUM_VALUES, generator=generator)


def compression_trial(rank: int, world_size: int, answer: Callable) -> Run:
    """Two means of different size in turn, so that neither may use the other's memory."""
    mean_, few_mean_ = (answer(n, rank, world_size) for n in (NUM_VALUES, FEW_VALUES))
    likely = "return mean_, uncalled"
    require(callable(mean_), "The function must return `mean_`", got=mean_, likely=likely)
    exact_P = whole_numbers_NP(world_size)[rank].clone()
    few_mean_(exact_P)
    results, bytes_sent, kinds = [], 0, {}
    for step in range(NUM_STEPS):
        gradient_P = gradients_NP(world_size)[rank].clone()
        with TrafficLedger() as ledger:
            mean_(gradient_P)
        results.append(gradient_P)
        bytes_sent += ledger.bytes_sent
        kinds.update(ledger.calls)
        if step % 8 == 0:
            few_mean_(torch.full((FEW_VALUES,), 1.001 + rank))
    return Run(exact_P, torch.stack(results), bytes_sent, tuple(kinds))


def drift_P(results_KP: Tensor, num_ranks: int) -> Tensor:
    """How far the sum of the results is from the sum of the true means."""
    mean_P = gradients_NP(num_ranks).double().mean(0)
    return results_KP.double().sum(0) - len(results_KP) * mean_P


def allowed_drift_P(num_ranks: int) -> Tensor:
    """One rounding of each kind, and a quarter for the values being a little larger than given."""
    gradients = gradients_NP(num_ranks).double()
    return 1.25 * HALF_ULP * (gradients.abs().mean(0) + gradients.mean(0).abs())


def drift_in_roundings(results_KP: Tensor, num_ranks: int) -> float:
    """The largest drift of all values, in units of what is allowed."""
    return (drift_P(results_KP, num_ranks).abs() / allowed_drift_P(num_ranks)).max().item()


def simulated_KP(
    num_ranks: int, num_steps: int = NUM_STEPS, own: str = "kept", back: str = "kept"
) -> Tensor:
    """The results of all steps, computed in one process; `own` and `back` are kinds of memory.

    "kept" is right; "none" forgets what was lost; "latest" keeps what the last rounding lost
    without what it owed before. Of `own`, "of the mean" compares with the final mean instead of
    with what was sent.
    """
    gradients = gradients_NP(num_ranks)
    lost_NP, lost_P, results = torch.zeros_like(gradients), torch.zeros(NUM_VALUES), []
    for _ in range(num_steps):
        sent_NP, lost_NP = _rounded(gradients, lost_NP, own)
        mean_P = sent_NP.mean(0)
        result_P, lost_P = _rounded(mean_P, lost_P, back)
        if own == "of the mean":
            lost_NP = gradients + lost_NP - result_P
        results.append(result_P)
    return torch.stack(results)


def _rounded(values: Tensor, lost: Tensor, memory: str) -> tuple[Tensor, Tensor]:
    """(what is sent, what is remembered)."""
    wanted = values + lost
    sent = wanted.bfloat16().float()
    kept = {
        "none": torch.zeros_like(values),
        "latest": values - sent,
        "of the mean": lost,
    }
    return sent, kept.get(memory, wanted - sent)


_OWED = "is reckoned from the gradient alone: what was owed before belongs to it"
_OWN = (
    "the error is kept of the mean, instead of this rank's own part: compare with what it has sent"
)
FORGOTTEN = (
    ("feedback is forgotten, or has the wrong sign: what roundings lose is added the next time",
     "none", "none"),
    ("what the second rounding loses is gone: the mean is rounded, too, on its way back",
     "kept", "none"),
    ("what the first rounding loses is gone: add it to this rank's next gradient", "none", "kept"),
    (f"the loss {_OWED}", "latest", "latest"),
    (f"the loss of the first rounding {_OWED}", "latest", "kept"),
    (f"the loss of the second rounding {_OWED}", "kept", "latest"),
    (_OWN, "of the mean", "none"),
    (_OWN, "of the mean", "kept"),
)  # fmt: skip


def forgotten(results_KP: Tensor, num_ranks: int) -> str:
    """Name the memory that leads to this drift, or say nothing."""
    found_P = drift_P(results_KP, num_ranks)
    distances = []
    for text, own, back in FORGOTTEN:
        expected_P = drift_P(simulated_KP(num_ranks, own=own, back=back), num_ranks)
        distances.append(((found_P - expected_P).norm().item(), text))
    distance, text = min(distances)
    return text if distance < 0.2 * found_P.norm().item() else ""
