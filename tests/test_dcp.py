"""Distributed checkpoints go on with any number of ranks (failures: test_dcp_failures.py)."""


import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.peers import TrainingJob, loss_of
from utils.peers.dcp import (
    flat_shard,
    load_sharded,
    load_training,
    save_sharded,
    save_training,
)
from utils.peers.fsdp2 import Fsdp2System
from utils.peers.harness import batches, one_process, parts_of
from utils.ranks import run_ranks
from utils.techniques.checkpointing import checkpoint_by_hooks

CONFIG = GPTConfig(2, 2, 30, 16, 50)  # rows that do not divide by 4
JOB = TrainingJob(CONFIG, batch_size=8, num_steps=5)
SAVED_AFTER = 3


def train(rank, world_size, job, steps, load=None, save=None, options=None):
    """Some of the job's steps; other weights than the job's if they are to be loaded."""
    model = build_gpt(job.config, seed=job.seed + (load is not None))
    system = Fsdp2System(model, rank, world_size, job, **(options or {}))
    if load:
        load_training(system.model, system.optimizer, load)
    losses = []
    for batch in list(batches(job))[steps]:
        ((tokens_BT, targets_BT),) = parts_of(batch, rank, world_size, 1)
        loss = system.backward(tokens_BT, targets_BT, is_last=True)
        system.step()
        dist.all_reduce(loss)
        losses.append(loss.item() / world_size)
    if save:
        save_training(system.model, system.optimizer, save)
    return losses


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Written by four ranks after three steps."""
    folder = tmp_path_factory.mktemp("saved") / "step-000003"
    run_ranks(train, 4, JOB, slice(SAVED_AFTER), None, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def next_losses():
    return one_process(JOB).losses[SAVED_AFTER:]


@pytest.mark.parametrize(
    "world_size, options",
    [
        (4, None),
        (4, {"num_shards": 2}),
        (2, None),
        (2, {"checkpoint": checkpoint_by_hooks}),  # wraps the blocks, and keeps their names
        (1, None),
    ],
)
def test_another_number_of_ranks_goes_on_as_if_nothing_had_happened(
    world_size, options, checkpoint, next_losses
):
    steps = slice(SAVED_AFTER, None)
    arguments = (JOB, steps, checkpoint, None, options)
    assert run_ranks(train, world_size, *arguments, quiet=True)[0] == pytest.approx(
        next_losses, abs=2e-6
    )


def test_a_plain_model_without_any_ranks_goes_on_too(checkpoint, next_losses):
    model = build_gpt(CONFIG, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=JOB.learning_rate)
    load_training(model, optimizer, checkpoint)
    losses = []
    for batch in list(batches(JOB))[SAVED_AFTER:]:
        loss = loss_of(model, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == pytest.approx(next_losses, abs=2e-6)


def save_flat(rank, world_size, folder, num_values):
    shard_S = torch.zeros(-(-num_values // world_size))
    for place in range(len(shard_S)):
        shard_S[place] = rank * len(shard_S) + place
    mesh = init_device_mesh("cpu", (world_size,))
    save_sharded({"flat": flat_shard(shard_S, num_values, mesh)}, folder)


def load_flat(rank, world_size, folder, num_values):
    shard_S = torch.full((-(-num_values // world_size),), -1.0)
    mesh = init_device_mesh("cpu", (world_size,))
    load_sharded({"flat": flat_shard(shard_S, num_values, mesh)}, folder)
    return shard_S


@pytest.mark.parametrize("num_values", [7, 5, 2])
def test_flat_shards_with_padding_are_cut_anew(tmp_path, num_values):
    """Five values on four ranks: 2, 2, 1 and none. Padding is neither saved nor filled."""
    run_ranks(save_flat, 4, tmp_path / "flat", num_values, quiet=True)
    for world_size in (3, 2, 1):
        shards = run_ranks(load_flat, world_size, tmp_path / "flat", num_values, quiet=True)
        whole = torch.cat(shards)
        assert torch.equal(whole[:num_values], torch.arange(num_values, dtype=torch.float))
        assert (whole[num_values:] == -1).all()
