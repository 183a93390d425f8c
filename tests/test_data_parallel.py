"""Data parallelism against the one-process run and against torch's DistributedDataParallel."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from utils.config import GPTConfig
from utils.model import build_gpt, next_token_loss
from utils.ranks import run_ranks
from utils.techniques import checkpointing
from utils.techniques.data_parallel import DataParallel, average_gradients, broadcast_model
from utils.techniques.segments import checkpointed, segments

CONFIG = GPTConfig(4, 4, 32, 16, 64)
NUM_STEPS, BATCH_SIZE = 3, 8


def batches():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(64, (NUM_STEPS, 2, BATCH_SIZE, 16), generator=generator)


def wrapped(kind, model, world_size, bucket_bytes):
    if kind == "torch":
        return DistributedDataParallel(model, bucket_cap_mb=bucket_bytes / 2**20)
    if kind == "ours":
        return DataParallel(model, world_size, first_bytes=bucket_bytes, bucket_bytes=bucket_bytes)
    broadcast_model(model)
    return model


def train(rank, world_size, kind, bucket_bytes=2**20, checkpoint=None, set_to_none=True):
    """A few steps on this rank's part of the batch: mean losses and weights."""
    model = build_gpt(CONFIG, seed=rank)  # different weights: the start must make them equal
    network = wrapped(kind, model, world_size, bucket_bytes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    losses = []
    plan = segments([2, 2])
    context = checkpointed(model, plan, getattr(checkpointing, checkpoint)) if checkpoint else None
    with context or nullcontext():
        for tokens_BT, targets_BT in batches():
            part = (each.chunk(world_size)[rank] for each in (tokens_BT, targets_BT))
            loss = next_token_loss(network, *part)
            loss.backward()
            if kind == "naive":
                average_gradients(model, world_size)
            optimizer.step()
            optimizer.zero_grad(set_to_none)
            losses.append(loss.detach())
    return torch.stack(losses), [p.detach().clone() for p in model.parameters()]


def one_process(num_parts):
    """The same steps in one process: the gradients of the parts are added, in order."""
    model = build_gpt(CONFIG, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for tokens_BT, targets_BT in batches():
        pairs = zip(tokens_BT.chunk(num_parts), targets_BT.chunk(num_parts), strict=True)
        parts = [next_token_loss(model, *pair) for pair in pairs]
        for part in parts:
            part.div(num_parts).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(torch.stack(parts).mean().detach())
    return torch.stack(losses), [p.detach().clone() for p in model.parameters()]


def all_equal(mine, others):
    return all(map(torch.equal, mine, others))


def largest_gap(mine, others):
    return max((a - b).abs().max().item() for a, b in zip(mine, others, strict=True))


VARIANTS = {
    "naive": dict(kind="naive"),
    "one bucket": dict(kind="ours", bucket_bytes=2**20),
    "many buckets": dict(kind="ours", bucket_bytes=3000),
    "gradients kept as zeros": dict(kind="ours", bucket_bytes=3000, set_to_none=False),
    "checkpoint by hooks": dict(kind="ours", checkpoint="checkpoint_by_hooks"),
    "checkpoint by function": dict(
        kind="ours", bucket_bytes=3000, checkpoint="checkpoint_by_function"
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_equal_one_process_bit_for_bit(name):
    losses, weights = one_process(2)
    by_rank = run_ranks(train, 2, *_arguments(**VARIANTS[name]))
    for _, mine in by_rank:
        assert all_equal(mine, weights)
    assert torch.equal(torch.stack([each[0] for each in by_rank]).mean(0), losses)


@pytest.mark.parametrize("world_size", [2, 4])
def test_equal_to_torchs_ddp_with_the_same_buckets(world_size):
    """One bucket on both sides: the same order of sums, so the same bits."""
    ours = run_ranks(train, world_size, "ours", 2**22)
    theirs = run_ranks(train, world_size, "torch", 2**22)
    gap = largest_gap(ours[0][1], theirs[0][1])
    assert gap == 0.0 if world_size == 2 else gap < 1e-6


@pytest.mark.parametrize("name", ["naive", "many buckets"])
def test_four_ranks_stay_equal_and_near_to_one_process(name):
    _, weights = one_process(4)
    by_rank = run_ranks(train, 4, *_arguments(**VARIANTS[name]))
    for _, mine in by_rank:
        assert all_equal(mine, by_rank[0][1])
        assert largest_gap(mine, weights) < 2e-6  # other orders of sums: some ulps of 0.5


def _arguments(kind, bucket_bytes=2**20, checkpoint=None, set_to_none=True):
    return kind, bucket_bytes, checkpoint, set_to_none


def accumulate(rank, world_size, kind):
    """Two micro-batches, one synchronisation: the gradient afterwards."""
    model = build_gpt(CONFIG, seed=0)
    network = wrapped(kind, model, world_size, 3000)
    tokens_BT, targets_BT = (each.chunk(world_size)[rank] for each in batches()[0])
    first, last = (list(zip(*(x.chunk(2) for x in (tokens_BT, targets_BT)), strict=True)))
    with network.no_sync():
        next_token_loss(network, *first).div(2).backward()
    between = [p.grad.clone() for p in model.parameters()]
    next_token_loss(network, *last).div(2).backward()
    return between, [p.grad.clone() for p in model.parameters()]


def test_accumulation_synchronises_once_and_equals_torchs():
    ours, theirs = run_ranks(accumulate, 2, "ours"), run_ranks(accumulate, 2, "torch")
    assert all_equal(ours[0][1], ours[1][1]) and all_equal(ours[0][1], theirs[0][1])
    assert not all_equal(ours[0][0], ours[1][0])  # nothing was sent inside no_sync
