"""FSDP with odd layers: used twice, in part, by some ranks only, of several inputs and results."""

import pytest
import torch
from torch import nn

from tests.fsdp_runs import whole_bytes
from tests.test_zero_edges import Odd, odd_loss
from tests.zero_runs import gap
from utils.ranks import run_ranks
from utils.techniques.fsdp import FullySharded
from utils.techniques.lane import ThreadLane
from utils.techniques.sharding import Sharding


def one_pass(rank, world_size):
    """Rank 0 alone uses the gates of every layer: elsewhere no unit is ever complete."""
    torch.manual_seed(0)
    model = Odd()
    fsdp = FullySharded(model, model.blocks, Sharding(rank, world_size), prefetch=1)
    for _ in range(2):
        x, gates = model(torch.full((2, 3), 0.1 * (rank + 1)), rank == 0)["x"]
        (x.square().mean() + (sum(gates).mean() if rank == 0 else 0.0)).backward()
    return fsdp.clip(1e9).item(), whole_bytes(fsdp)


def test_parameters_that_only_one_rank_uses_do_not_change_the_order_of_messages():
    torch.manual_seed(0)
    model = Odd()
    for rank in (0, 1) * 2:
        x, gates = model(torch.full((2, 3), 0.1 * (rank + 1)), rank == 0)["x"]
        ((x.square().mean() + (sum(gates).mean() if rank == 0 else 0.0)) / 2).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    for mine, whole in run_ranks(one_pass, 2, timeout_s=30, quiet=True):
        assert mine == pytest.approx(norm, rel=1e-6) and whole == 0


def odd(rank, world_size):
    found = []
    for options in (dict(prefetch=0), dict(prefetch=2), dict(reshard_after_forward=False)):
        torch.manual_seed(rank)
        model = Odd()
        sharding = Sharding(rank, world_size)
        fsdp = FullySharded(model, model.blocks, sharding, ThreadLane(), **options)
        optimizer = torch.optim.AdamW(fsdp.parameters(), lr=0.01)
        for _ in range(3):
            odd_loss(model, rank).backward()
            with torch.no_grad():  # an evaluation between backward and step
                model(torch.ones(1, 3), True)
            assert whole_bytes(fsdp) == 0
            optimizer.step()
            optimizer.zero_grad()
        found.append(fsdp.whole_parameters())
    return found


def test_odd_results_shared_layers_unused_parameters_and_one_value_on_four_ranks():
    """What a step does not use counts as a gradient of zeros, on whichever ranks it is."""
    torch.manual_seed(0)
    model = Odd()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(3):
        for rank in range(4):
            (odd_loss(model, rank) / 4).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    expected = [p.detach() for p in model.parameters()]
    for found in run_ranks(odd, 4, quiet=True):
        for parameters in found:
            assert gap(parameters, expected) < 1e-6
            assert gap(parameters, found[0]) == 0.0


class TwoInputs(nn.Module):
    """A frozen layer of two inputs; the gradient of the second, a keyword, is there first."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3)
        self.other.weight.requires_grad_(False)

    def forward(self, x, context):
        return self.one(x).tanh() * self.other(context).tanh() + x


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.blocks = nn.ModuleList(TwoInputs() for _ in range(3))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            leaf = torch.full_like(x, 0.5, requires_grad=True)  # autograd hurries to leaves
            x = block(x, context=leaf)
        return x


def two_inputs(rank, world_size):
    torch.manual_seed(0)
    model, plain = Stack(), Stack()
    plain.load_state_dict(model.state_dict())
    fsdp = FullySharded(model, model.blocks, Sharding(rank, world_size))
    x = torch.linspace(-1, 1, 12).view(4, 3)
    for each in (model, plain):
        each(x).sum().backward()
    theirs = [p.grad for p in plain.parameters() if p.requires_grad]
    mine = fsdp.clip(1e9).item()
    return mine, torch.nn.utils.get_total_norm(theirs).item(), whole_bytes(fsdp)


def test_frozen_weights_stay_until_the_gradients_of_all_inputs_are_there():
    for mine, theirs, whole in run_ranks(two_inputs, 2, quiet=True):
        assert mine == pytest.approx(theirs, rel=1e-6) and whole == 0
