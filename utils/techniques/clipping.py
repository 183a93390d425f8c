"""Clip gradients by their global norm when each rank holds only a part of them.

How it works: the squares of all ranks' parts are added up in one all-reduce of a single number, so
that every rank scales by the same factor, the one that a process with all gradients would find.
Padding adds zeros. Left out: other norms than the Euclidean one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup | None


def global_norm(gradients: Sequence[Tensor], group: Group = None) -> Tensor:
    """The norm, in fp64, of everything that the ranks' parts make up together."""
    device = gradients[0].device if gradients else None
    square = torch.zeros((), dtype=torch.float64, device=device)
    for gradient in gradients:
        square += gradient.double().square().sum()
    dist.all_reduce(square, group=group)
    return square.sqrt()


@torch.no_grad()
def clip_by_global_norm(
    gradients: Sequence[Tensor], max_norm: float, group: Group = None
) -> Tensor:
    """Scale the parts in place so that their global norm is at most `max_norm`; the norm before.

    A norm that is infinite or NaN makes gradients NaN on all ranks, as with torch's function: look
    at the norm. Raises ValueError unless `max_norm` is positive.
    """
    require_positive(max_norm)
    norm = global_norm(gradients, group)
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)  # as torch's clip_grad_norm_
    for gradient in gradients:
        gradient *= scale.to(gradient.dtype)
    return norm


def require_positive(max_norm: float) -> None:
    """Raise ValueError for a norm that gradients cannot be clipped to."""
    if not max_norm > 0:
        raise ValueError(f"max_norm must be greater than 0, not {max_norm}.")
