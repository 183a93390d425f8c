"""The truth of lab 08's micro-batches, and which mistake leads to which gradient.

How it works: `whole_gradients` computes, in one process, the gradient of every micro-batch of every
rank in a step, in bf16, with the weights of this step or of the one before. Means of them, and
whatever else learners make of them, are cut into shards like the answer's.
Suffixes: N ranks, K micro-batches, P all values of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from utils.checks.truth_08_micro import (
    LEARNING_RATE,
    NUM_MICRO,
    SHAPES,
    build_model,
    coefficients_P,
)


def masters_P(step: int, num_ranks: int) -> Tensor:
    """The fp32 weights before a step."""
    weights_P = torch.cat([each.detach().flatten() for each in build_model().parameters()])
    for number in range(step):
        gradients = whole_gradients_NKP(number, num_ranks, weights_P)
        weights_P = weights_P - LEARNING_RATE * gradients.mean((0, 1))
    return weights_P


def whole_gradients_NKP(step: int, num_ranks: int, weights_P: Tensor) -> Tensor:
    """c + w in bf16, as fp32."""
    low_P = weights_P.bfloat16()
    by_rank = [[(coefficients_P(step, micro, rank) + low_P).float() for micro in range(NUM_MICRO)]
               for rank in range(num_ranks)]  # fmt: skip
    return torch.stack([torch.stack(each) for each in by_rank])


def shards(values_P: Tensor, rank: int, num_ranks: int) -> list[Tensor]:
    """This rank's part of each unit, padded with zeros."""
    sizes = [sum(torch.Size(shape).numel() for shape in unit) for unit in SHAPES]
    padded = [torch.cat([part, torch.zeros(-len(part) % num_ranks)])
              for part in values_P.split(sizes)]  # fmt: skip
    return [part.chunk(num_ranks)[rank] for part in padded]


def true_P(step: int, num_ranks: int) -> Tensor:
    """The mean over micro-batches and ranks."""
    return whole_gradients_NKP(step, num_ranks, masters_P(step, num_ranks)).mean((0, 1))


def _in_bf16(gradients_NKP: Tensor) -> Tensor:
    """Added up in bf16, as autograd does in parameter.grad."""
    total = gradients_NKP[:, 0].bfloat16()
    for micro in range(1, NUM_MICRO):
        total = total + gradients_NKP[:, micro].bfloat16()
    return total.float().mean(0) / NUM_MICRO


def mistakes(step: int, num_ranks: int) -> list[tuple[str, Tensor]]:
    """(mistake, the gradient that it leads to)."""
    by_micro = whole_gradients_NKP(step, num_ranks, masters_P(step, num_ranks))
    mean_P = by_micro.mean((0, 1))
    last, first = by_micro[:, -1].mean(0), by_micro[:, 0].mean(0)
    last_only = "only the last micro-batch counts: add up before you clear parameter.grad"
    first_only = "only the first micro-batch counts"
    twice = "the mean over micro-batches is taken twice: of the loss, and of the sum"
    found = [
        ("summed over micro-batches, not averaged: divide by their number", mean_P * NUM_MICRO),
        (twice, mean_P / NUM_MICRO),
        ("divided by the number of ranks again: reduce has averaged over them", mean_P / num_ranks),
        (last_only, last),
        (last_only, last / NUM_MICRO),
        (first_only, first),
        (first_only, first / NUM_MICRO),
        ("added up in bf16, where 256 + 1 is 256: keep sums in fp32, clear parameter.grad after "
         "each micro-batch", _in_bf16(by_micro)),
        ("each micro-batch is added to a sum that holds it already", _running(by_micro)),
        ("all-zero gradients agree on every rank, but nothing is learned from them", 0 * mean_P),
    ]  # fmt: skip
    return found + _of_the_step_before(step, num_ranks, mean_P)


def _running(by_micro: Tensor) -> Tensor:
    """The sums after each micro-batch, in bf16, added up."""
    sums, total = [], torch.zeros_like(by_micro[:, 0]).bfloat16()
    for micro in range(NUM_MICRO):
        total = total + by_micro[:, micro].bfloat16()
        sums.append(total.float())
    return torch.stack(sums).sum(0).mean(0) / NUM_MICRO


def _of_the_step_before(step: int, num_ranks: int, mean_P: Tensor) -> list[tuple[str, Tensor]]:
    if step == 0:
        return []
    old_P = masters_P(step - 1, num_ranks)
    stale = whole_gradients_NKP(step, num_ranks, old_P).mean((0, 1))
    before = true_P(step - 1, num_ranks)
    return [
        ("stale weights: what was gathered before the update is used after it. Free the weights",
         stale),
        ("gradients of the step before are still in it: optimizer.zero_grad()", mean_P + before),
    ]  # fmt: skip


def name_of(got: list[Tensor], step: int, rank: int, num_ranks: int) -> str:
    """The mistake that explains these shards, or nothing."""
    if any(bool(each.isnan().any()) for each in got):
        return "the loss met weights without values: gather before it, free after the last backward"

    def equal(values_P: Tensor) -> bool:
        pairs = zip(got, shards(values_P, rank, num_ranks), strict=True)
        return all(torch.allclose(mine, other, rtol=1e-5) for mine, other in pairs)

    return next((text for text, value in mistakes(step, num_ranks) if equal(value)), "")
