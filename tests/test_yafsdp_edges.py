"""Our YaFSDP with checkpoints, autocast, frozen parts, broken steps, unused parts."""

from contextlib import nullcontext

import pytest
import torch

from utils.config import GPTConfig
from utils.model import build_gpt, next_token_loss
from utils.ranks import TrafficLedger, run_ranks
from utils.techniques import checkpointing
from utils.techniques.fsdp import FullySharded
from utils.techniques.lane import ThreadLane
from utils.techniques.segments import checkpointed, segments
from utils.techniques.sharding import Sharding
from utils.techniques.yafsdp import YaFSDP

CONFIG = GPTConfig(4, 4, 32, 16, 64)
GENERATOR = torch.Generator().manual_seed(5)
BATCHES = torch.randint(64, (3, 2, 4, 16), generator=GENERATOR)


def batch(rank, world_size, number):
    return (each.chunk(world_size)[rank] for each in BATCHES[number])


def sharded(kind, model, rank, world_size, **options):
    make = {"ours": YaFSDP, "fsdp": FullySharded}[kind]
    return make(model, model.blocks, Sharding(rank, world_size), ThreadLane(), **options)


def train(rank, world_size, kind, checkpoint=None, lengths=(1, 1, 1, 1), autocast=False,
          freeze=(), between=None):  # fmt: skip
    """Three AdamW steps: losses, weights, and the gathers of the last step."""
    model = build_gpt(CONFIG, seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not any(part in name for part in freeze)
    network = sharded(kind, model, rank, world_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    context = None
    if checkpoint:
        plan = segments(list(lengths))
        context = checkpointed(model, plan, getattr(checkpointing, checkpoint))
    losses, ledger = [], None
    with context or nullcontext():
        for number in range(len(BATCHES)):
            if between:
                between(model, optimizer, rank, world_size)
            with TrafficLedger() as ledger:
                with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                    loss = next_token_loss(model, *batch(rank, world_size, number))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
    return losses, network.whole_parameters(), ledger.calls["all_gather"]


def in_every_bit(first, second):
    return first[0] == second[0] and all(map(torch.equal, first[1], second[1]))


@pytest.mark.parametrize("checkpoint", ["checkpoint_by_function", "checkpoint_by_hooks"])
@pytest.mark.parametrize(
    ("lengths", "num_gathers"), [((1, 1, 1, 1), 8), ((2, 2), 8), ((1, 3), 10), ((4,), 12)], ids=str
)
def test_a_checkpoint_changes_no_bit(checkpoint, lengths, num_gathers):
    plain = run_ranks(train, 2, "ours", quiet=True)[0]
    again = run_ranks(train, 2, "ours", checkpoint, lengths, quiet=True)[0]
    assert in_every_bit(again, plain)
    assert plain[2] == 8
    # Second forward and backward share a gather where a segment fits into the buffers.
    assert again[2] == num_gathers


def test_autocast_changes_as_much_as_for_fsdp():
    ours = run_ranks(train, 2, "ours", None, (), True, quiet=True)[0]
    assert in_every_bit(ours, run_ranks(train, 2, "fsdp", None, (), True, quiet=True)[0])


@pytest.mark.parametrize("freeze", [("blocks.1.",), ("embedding",), ("norm",), ("blocks",),
                                    ("query_key_value", "widen", "output", "narrow")])  # fmt: skip
@pytest.mark.parametrize("checkpoint", [None, "checkpoint_by_function", "checkpoint_by_hooks"])
def test_frozen_parts_stay_as_they_are(freeze, checkpoint):
    ours = run_ranks(train, 2, "ours", checkpoint, (1, 1, 1, 1), False, freeze, quiet=True)[0]
    assert in_every_bit(ours, run_ranks(train, 2, "fsdp", None, (), False, freeze, quiet=True)[0])
    for (name, before), after in zip(build_gpt(CONFIG).named_parameters(), ours[1], strict=True):
        assert torch.equal(before, after) == any(part in name for part in freeze), name


def evaluate(model, optimizer, rank, world_size):
    with torch.no_grad():
        next_token_loss(model, *batch(rank, world_size, 0))


def fail_once(model, optimizer, rank, world_size):
    """A backward that an error ends in the middle, on all ranks at the same layer."""
    loss = next_token_loss(model, *batch(rank, world_size, 0))
    middle = model.blocks[2].register_full_backward_hook(raise_error)
    with pytest.raises(ZeroDivisionError):
        next_token_loss(model, *batch(rank, world_size, 0)).backward()
    middle.remove()
    del loss


def raise_error(*_):
    raise ZeroDivisionError


@pytest.mark.parametrize("between", [evaluate, fail_once])
def test_what_happens_between_two_steps_changes_nothing(between):
    plain = run_ranks(train, 2, "ours", quiet=True)[0]
    again = run_ranks(train, 2, "ours", None, (), False, (), between, quiet=True)[0]
    assert in_every_bit(again, plain)
