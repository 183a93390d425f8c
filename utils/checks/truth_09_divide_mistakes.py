"""Which mistake leads to which mean gradient in lab 09.

Suffixes: N ranks, K micro-batches, L layers, P values of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from utils.checks.truth_09_divide import NUM_RANKS, Case

TWICE = "divided twice: once for each micro-batch, and at the end again"
EARLY = (
    "divided before the sum, in 16 bits: small values underflow there, others are rounded. Divide "
    "the fp32 sum"
)
STALE = "the buffer still holds what it held before: backward adds to it, so zero it first"


def _in_16_bits(case: Case) -> Tensor:
    """Each message is right, but micro-batches are added up in 16 bits."""
    total = case.gradients_NKLP[:, 0].sum(0).to(case.dtype)
    for micro in range(1, case.num_micro):
        total = total + case.gradients_NKLP[:, micro].sum(0).to(case.dtype)
    return total.float() / (NUM_RANKS * case.num_micro)


def _divided_before(case: Case, before: int, after: int) -> Tensor:
    low = (case.gradients_NKLP.to(case.dtype) / before).float()
    return low.sum((0, 1)) / after


def _not_zeroed(case: Case) -> Tensor:
    """Each buffer keeps adding up, from what it held at the start; taken in turn."""
    gradients = case.gradients_NKLP.to(case.dtype)
    start = torch.full((NUM_RANKS, gradients.shape[-1]), 7.0, dtype=case.dtype)
    buffers, sums = [start.clone() for _ in range(case.num_buffers)], 0 * case.true_LP
    turn = 0
    for micro in range(case.num_micro):
        for layer in reversed(range(case.num_layers)):
            buffer = buffers[turn % case.num_buffers]
            buffer += gradients[:, micro, layer]
            sums[layer] += buffer.float().sum(0)
            turn += 1
    return sums / (NUM_RANKS * case.num_micro)


def mistakes(case: Case) -> list[tuple[str, Tensor]]:
    """(mistake, the mean gradients that it leads to)."""
    true, ranks, micros = case.true_LP, NUM_RANKS, case.num_micro
    last = case.gradients_NKLP[:, -1].mean(0)
    first = case.gradients_NKLP[:, 0].mean(0)
    layers = "divided by the number of layers"
    only = "only one micro-batch counts: add the sums up"
    found = [
        ("not divided by the number of micro-batches", true * micros),
        ("not divided by the number of ranks: start_sum brings a sum, not a mean", true * ranks),
        ("never divided: the mean over ranks and micro-batches is asked", true * ranks * micros),
        (TWICE, true / micros),
        (TWICE, true / ranks),
        (TWICE, true / (ranks * micros)),
        (layers, true * ranks * micros / case.num_layers),
        (layers, true * micros / case.num_layers), (layers, true * ranks / case.num_layers),
        (only, last), (only, last / micros), (only, first), (only, first / micros),
        (EARLY, _divided_before(case, ranks * micros, 1)),
        (EARLY, _divided_before(case, ranks, micros)),
        (EARLY, _divided_before(case, micros, ranks)),
        ("micro-batches are added up in 16 bits: keep the sums in fp32", _in_16_bits(case)),
        (STALE, _not_zeroed(case)),
        ("the gradients are those of other layers: backward begins with the last layer, the result "
         "with the first", true.flip(0)),
        ("all-zero gradients agree on every rank, but nothing is learned from them", 0 * true),
    ]  # fmt: skip
    return [(text, value) for text, value in found if not _equal(value, true)]


def shard_of(values_LP: Tensor, rank: int) -> Tensor:
    """This rank's part of each layer."""
    return values_LP.chunk(NUM_RANKS, dim=1)[rank]


def is_right(got: Sequence[Tensor], case: Case, rank: int) -> bool:
    """Whether these are the shards of the mean."""
    return _equal(torch.stack(list(got)), shard_of(case.true_LP, rank))


def name_of(runs: Sequence[Sequence[Tensor]], case: Case, rank: int) -> str:
    """The mistake that explains what a rank has; `runs` are the shards of all ranks."""
    if any(is_right(each, case, other) for other, each in enumerate(runs)):
        return "only some ranks divide: all hold shards of the same sum, so all must do the same"
    got = torch.stack(list(runs[rank]))
    found = ((text, shard_of(value, rank)) for text, value in mistakes(case))
    return next((text for text, value in found if _equal(got, value)), "")


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-12)
