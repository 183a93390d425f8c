"""Which mistake leads to a wrong gradient of lab 06's overlapped data parallelism."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from utils.checks.truth_06_overlap import StepTruth

OTHER_MEETS = (
    "each rank sends in the order of its own backward, so the order of messages differs between "
    "ranks and different gradients meet: keep one order on all ranks"
)
NOTHING_OF_OTHERS = "nothing of the other ranks has arrived in it"
ALL_ZERO = "all-zero gradients agree on every rank, but nothing is learned from them"


def mistake_of(
    name: str, got: Mapping[str, Tensor | None], truth: StepTruth, rank: int
) -> str:
    """Name what leads to the wrong gradient `got[name]`, or say nothing."""
    trained = [got[each] for each in truth.mean]
    if not any(gradient is not None and gradient.any() for gradient in trained):
        return ALL_ZERO
    num_ranks, own = len(truth.by_rank), truth.by_rank[rank][name]
    mean, first = truth.mean[name], truth.by_rank[0]
    crossed = name.replace("left", "#").replace("right", "left").replace("#", "right")
    mine_first = torch.stack([first[name], *(each[crossed] for each in truth.by_rank[1:])])
    others_first = torch.stack([first[crossed], *(each[name] for each in truth.by_rank[1:])])
    explanations = [
        ("sum instead of mean: divide by world_size", num_ranks * mean),
        ("divided by world_size twice", mean / num_ranks),
        (NOTHING_OF_OTHERS, own),
        (NOTHING_OF_OTHERS, own / num_ranks),
        (OTHER_MEETS, mine_first.mean(0)),
        (OTHER_MEETS, others_first.mean(0)),
    ]
    found = (text for text, value in explanations if torch.allclose(got[name], value, rtol=1e-4))
    return next(found, "")
