"""Gradients in a few large flat buffers, so that a few large messages carry them.

How it works: parameters are taken in reverse, for backward reaches the last layer first. A bucket
is closed once it holds its cap or more. The first cap is small, so that communication starts early.
Each parameter's gradient is a view of its bucket: after the first step nothing is copied to send
it. The caps are torch's, 1 MiB and then 25 MiB.

Left out: torch orders its buckets anew after the first step, by the order in which gradients came.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

MIB = 2**20
FIRST_BUCKET_BYTES, BUCKET_BYTES = MIB, 25 * MIB

StartSum = Callable[[Tensor], Any]  # starts to sum a flat tensor over ranks; the result has wait()


@dataclass
class Bucket:
    """One flat buffer; `views[i]` is where the gradient of `parameters[i]` lies in it."""

    parameters: list[nn.Parameter]
    flat_P: Tensor = field(init=False)
    views: list[Tensor] = field(init=False)
    waiting: set[int] = field(default_factory=set)  # places of gradients that are not there yet
    work: Any = None

    def __post_init__(self) -> None:
        sizes = [parameter.numel() for parameter in self.parameters]
        first = self.parameters[0]
        self.flat_P = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        parts = self.flat_P.split(sizes)
        self.views = [
            part.view_as(parameter)
            for part, parameter in zip(parts, self.parameters, strict=True)
        ]

    def expect_all(self) -> None:
        """A backward pass begins."""
        self.waiting = set(range(len(self.parameters)))
        self.work = None

    def take(self, place: int) -> None:
        """A gradient is there: from now on it lives in the bucket."""
        parameter, view = self.parameters[place], self.views[place]
        if parameter.grad is None:
            view.zero_()
        elif parameter.grad is not view:
            view.copy_(parameter.grad)
            parameter.grad = view
        self.waiting.discard(place)

    def start(self, start_sum: StartSum, world_size: int) -> None:
        """Begin to average over ranks."""
        self.flat_P.mul_(1.0 / world_size)  # before the sum: 16-bit sums could overflow
        self.work = start_sum(self.flat_P)


def make_buckets(
    parameters: Sequence[nn.Parameter],
    first_bytes: int = FIRST_BUCKET_BYTES,
    bucket_bytes: int = BUCKET_BYTES,
) -> list[Bucket]:
    """Buckets for `parameters` (in the model's order), the last parameter first.

    Dtypes and devices are never mixed. Raises ValueError for a cap below one byte.
    """
    if first_bytes < 1 or bucket_bytes < 1:
        raise ValueError(
            f"A bucket needs a cap of at least one byte, not {first_bytes} and {bucket_bytes}."
        )
    groups: list[list[nn.Parameter]] = []
    held_bytes = 0
    for parameter in reversed(parameters):
        cap_bytes = first_bytes if len(groups) == 1 else bucket_bytes
        fits = bool(groups) and held_bytes < cap_bytes
        if not fits or _kind(groups[-1][0]) != _kind(parameter):
            groups.append([])
            held_bytes = 0
        groups[-1].append(parameter)
        held_bytes += parameter.nbytes
    return [Bucket(group) for group in groups]


def _kind(parameter: nn.Parameter) -> tuple[torch.dtype, torch.device]:
    return parameter.dtype, parameter.device
