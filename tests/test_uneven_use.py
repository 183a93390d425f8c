"""Parameters that only some ranks use, in every sharded technique: zeros elsewhere, no mix-up."""

from functools import partial

import pytest
import torch
from torch import nn

from utils.ranks import run_ranks
from utils.techniques.fsdp import FullySharded
from utils.techniques.lane import ThreadLane
from utils.techniques.sharding import Sharding
from utils.techniques.yafsdp import YaFSDP
from utils.techniques.zero import ZeroOne, ZeroThree, ZeroTwo

ZERO = {"ZeRO-1": ZeroOne, "ZeRO-2": ZeroTwo, "ZeRO-3": ZeroThree}
FSDP = {"FSDP": FullySharded, "YaFSDP": YaFSDP}


class Partly(nn.Module):
    """A layer whose second matrix is used or not; all layers are of one size, so messages fit."""

    def __init__(self, uses_all):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.uses_all = uses_all

    def forward(self, x_BD):
        x_BD = x_BD + torch.tanh(self.first(x_BD))
        return x_BD + self.second(x_BD) if self.uses_all else x_BD


class Stack(nn.Module):
    """Layers and a head; rank 1 uses every second layer in part."""

    def __init__(self, rank):
        super().__init__()
        layers = [Partly(rank == 0 or number % 2 == 0) for number in range(4)]
        self.layers, self.head = nn.ModuleList(layers), nn.Linear(8, 1)

    def forward(self, x_BD):
        for layer in self.layers:
            x_BD = layer(x_BD)
        return self.head(x_BD)


def train(rank, world_size, kind):
    """Three steps, one forward and one backward each; the whole parameters."""
    torch.manual_seed(0)
    model, adam = Stack(rank), partial(torch.optim.AdamW, lr=1e-2)
    if kind in ZERO:
        network = ZERO[kind](model, model.layers, adam, rank, world_size)
        step = network.step
    else:
        network = FSDP[kind](model, model.layers, Sharding(rank, world_size), ThreadLane())
        optimizer = adam(network.parameters())
        step = optimizer.step
    for _ in range(3):
        model(torch.randn(4, 8)).square().mean().backward()
        step()
        if kind in FSDP:
            optimizer.zero_grad()
    return network.whole_parameters()


def one_process():
    """The same steps with both ranks' losses; what was not used has a gradient of zeros."""
    torch.manual_seed(0)
    model = Stack(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        batch_BD = torch.randn(4, 8)
        for uses_all in (True, False):
            for number, layer in enumerate(model.layers):
                layer.uses_all = uses_all or number % 2 == 0
            (model(batch_BD).square().mean() / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [each.detach() for each in model.parameters()]


@pytest.mark.parametrize("kind", [*ZERO, *FSDP])
def test_what_one_rank_does_not_use_counts_as_zeros(kind):
    both = run_ranks(train, 2, kind, quiet=True, timeout_s=30)
    for mine, other, expected in zip(*both, one_process(), strict=True):
        assert torch.equal(mine, other)
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)
