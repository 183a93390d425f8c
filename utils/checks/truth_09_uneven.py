"""A model whose layers are of unequal width, so that a buffer of a wrong size shows (lab 09).

Shape suffixes: B sequences, C input values, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDTH, BATCH_SIZE = 5, 4


class Block(nn.Module):
    """A norm, up, down, and around them a residual connection."""

    def __init__(self, width: int, has_norms: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH) if has_norms else nn.Identity()
        self.up, self.down = nn.Linear(WIDTH, width), nn.Linear(width, WIDTH)

    def forward(self, x_BD: Tensor) -> Tensor:
        return x_BD + self.down(self.up(self.norm(x_BD)).tanh())


class Uneven(nn.Module):
    """`blocks` of these widths between two linear layers that belong to the root."""

    def __init__(self, widths: Sequence[int], has_norms: bool) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
            self.blocks = nn.ModuleList(Block(width, has_norms) for width in widths)

    def forward(self, x_BC: Tensor) -> Tensor:
        x_BD = self.first(x_BC)
        for block in self.blocks:
            x_BD = block(x_BD)
        return self.last(x_BD)


def loss_of(model: nn.Module, step: int, rank: int) -> Tensor:
    """A rank's loss in a step."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return (model(torch.randn(BATCH_SIZE, 3, generator=generator)) - 1).square().mean()
