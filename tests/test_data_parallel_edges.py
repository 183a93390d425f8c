"""Data parallelism at its edges: unused, frozen, tied and missing gradients, and buffers."""

import torch
from torch import nn

from utils.config import GPTConfig
from utils.model import build_gpt, next_token_loss
from utils.ranks import run_ranks
from utils.techniques.data_parallel import DataParallel


class Branches(nn.Module):
    """Two layers of which a call uses one, and a buffer that counts calls."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.idle = (nn.Linear(3, 3) for _ in range(3))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x, use_left):
        self.calls += 1
        return (self.left if use_left else self.right)(x).sum()


def unused(rank, world_size):
    torch.manual_seed(0)
    model = Branches()
    network = DataParallel(model, world_size, find_unused=True)
    network(torch.full((1, 3), 1.0 + rank), use_left=rank == 0).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_unused_parameters_count_as_zero_and_those_of_nobody_stay_without_gradient():
    for gradients in run_ranks(unused, 2):
        assert torch.equal(gradients["left.weight"], torch.full((3, 3), 0.5))  # 1 / 2
        assert torch.equal(gradients["right.weight"], torch.full((3, 3), 1.0))  # 2 / 2
        assert gradients["idle.weight"] is None


def missing(rank, world_size):
    network = DataParallel(Branches(), world_size)
    try:
        network(torch.ones(1, 3), use_left=True).backward()
    except RuntimeError as error:
        return str(error)


def test_a_missing_gradient_is_named_instead_of_waited_for():
    for message in run_ranks(missing, 2):
        assert "4 parameters got no gradient" in message and "find_unused=True" in message


def twice(rank, world_size):
    network = DataParallel(Branches(), world_size)
    loss = network(torch.ones(1, 3), use_left=True)
    network.find_unused = True
    loss = network(torch.ones(1, 3), use_left=True)
    loss.backward(retain_graph=True)
    try:
        loss.backward()
    except RuntimeError as error:
        return str(error)


def test_a_second_backward_without_forward_is_named():
    assert all("got a gradient twice" in message for message in run_ranks(twice, 2))


def buffers(rank, world_size):
    model = Branches()
    model.calls += 10 * rank
    network = DataParallel(model, world_size, find_unused=True)
    model.calls += 10 * rank
    network(torch.ones(1, 3), use_left=True)
    return model.calls.item()


def test_buffers_are_those_of_rank_0_at_every_forward():
    assert run_ranks(buffers, 2) == [1.0, 1.0]


def frozen_and_tied(rank, world_size):
    model = build_gpt(GPTConfig(2, 2, 16, 8, 32, tied_embeddings=True), seed=rank)
    model.position_embedding.requires_grad_(False)
    network = DataParallel(model, world_size, bucket_bytes=500, first_bytes=500)
    tokens_BT = torch.arange(8).view(1, 8) + rank
    next_token_loss(network, tokens_BT, tokens_BT).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_frozen_and_tied_parameters():
    first, second = run_ranks(frozen_and_tied, 2)
    assert first["position_embedding.weight"] is None
    assert torch.equal(first["token_embedding.weight"], second["token_embedding.weight"])
    for name, gradient in first.items():
        assert gradient is None or torch.equal(gradient, second[name])
