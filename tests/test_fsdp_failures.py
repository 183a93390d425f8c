"""FSDP when something goes wrong: refusals, errors in mid-step, old weights, ranks that stop."""

import os

import pytest
import torch

from tests.fsdp_runs import Way, fast_link, one_process, shard, threaded, ways, whole_bytes
from tests.test_zero_failures import break_backward, break_forward, message_of
from tests.zero_runs import CONFIG, Case, adam, backward, gap
from utils.model import build_gpt, next_token_loss
from utils.ranks import RankError, run_ranks
from utils.techniques.fsdp import FullySharded
from utils.techniques.lane import InlineLane, ThreadLane
from utils.techniques.sharding import Sharding, group_of_two_levels


def refusals(rank, world_size):
    model = build_gpt(CONFIG)
    frozen = build_gpt(CONFIG).requires_grad_(False)
    mine = Sharding(rank, world_size)
    tries = [
        lambda: FullySharded(model, model.blocks, mine, prefetch=-1),
        lambda: FullySharded(model, model.blocks, Sharding(rank, world_size + 1)),
        lambda: FullySharded(frozen, frozen.blocks, mine),
        lambda: group_of_two_levels(rank, world_size, 3),
        lambda: group_of_two_levels(rank, world_size, 0),
    ]
    messages = [message_of(ValueError, each) for each in tries]
    FullySharded(model, model.blocks, mine)
    messages.append(message_of(RuntimeError, model.state_dict))
    return messages


def test_what_cannot_work_is_refused_in_a_sentence():
    assert run_ranks(refusals, 2, quiet=True)[1] == [
        "prefetch must be 0 or more, not -1.",
        "This is rank 1 of 2 in the group, not rank 1 of 3: pass the rank and the world size of "
        "the group that shares the model.",
        "The model has no parameter that requires a gradient: nothing to do.",
        "2 ranks cannot form groups of 3: take a divisor.",
        "2 ranks cannot form groups of 0: take a divisor.",
        "The model's weights are shards, so it has no state_dict: use whole_parameters(), or "
        "fsdp_checkpoint.save_fsdp.",
    ]


def go_on(rank, world_size):
    """Errors in a first try of each step, and forwards without a backward."""
    found = []
    for way in (Way(), threaded(ways(reshard_after_forward=False, prefetch=2))):
        model = build_gpt(CONFIG, seed=rank)
        fsdp = shard(model, rank, world_size, Case(), way)
        optimizer = adam(fsdp.parameters())
        for batch in Case().batches():
            break_backward(model, batch)
            break_forward(model, batch)
            backward(model, batch, rank, world_size, 1)
            break_forward(model, batch)  # its weights must not outlive the step
            next_token_loss(model, *batch)  # nor those of a forward without a backward
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            model(batch[0])
        found.append((fsdp.whole_parameters(), whole_bytes(fsdp)))
    return found


def test_after_an_error_the_next_step_is_right_and_no_weights_grow_old():
    oracle = one_process(Case(), 2)
    for found in run_ranks(go_on, 2, quiet=True):
        for parameters, whole in found:
            assert gap(parameters, oracle.parameters) == 0.0 and whole == 0


def old_weights(rank, world_size):
    """Micro-batches that keep weights, then an update without the last one."""
    model = build_gpt(CONFIG)
    fsdp = FullySharded(model, model.blocks, Sharding(rank, world_size))
    batch = Case().batches()[0]
    with fsdp.no_sync(keep_weights=True):
        before = next_token_loss(model, *batch)
        before.backward()
        with torch.no_grad():
            for each in fsdp.parameters():
                each *= 1.5
        return before.item(), next_token_loss(model, *batch).item()


def test_an_update_makes_kept_weights_be_gathered_again():
    for before, after in run_ranks(old_weights, 2, quiet=True):
        assert abs(before - after) > 1e-4


def raises(*_):
    raise ValueError("the wire is cut")


def dies(*_):
    os._exit(3)


def stops(rank, world_size, how, make_lane):
    """The second step goes wrong on rank 1."""
    model = build_gpt(CONFIG)
    scatter = raises if how == "in the lane" and rank == 1 else None
    sharding = Sharding(rank, world_size, scatter=scatter)
    fsdp = FullySharded(model, model.blocks, sharding, make_lane())
    for step in range(2):
        if rank == 1 and step == 1 and how == "in forward":
            model.blocks[1].register_forward_hook(raises)
        if rank == 1 and step == 1 and how == "in backward":
            model.blocks[1].register_full_backward_hook(raises)
        if rank == 1 and step == 1 and how == "for good":
            model.blocks[1].register_forward_hook(dies)
        next_token_loss(model, *Case().batches()[0]).backward()
    fsdp.lane.close()


@pytest.mark.parametrize("how, make_lane", [
    ("in forward", ThreadLane), ("in backward", InlineLane), ("in the lane", InlineLane),
    ("in the lane", ThreadLane), ("in the lane", fast_link), ("for good", ThreadLane),
])  # fmt: skip
def test_a_rank_that_stops_is_named_and_nobody_hangs(how, make_lane):
    with pytest.raises(RankError) as caught:
        run_ranks(stops, 3, how, make_lane, timeout_s=45, quiet=True)
    assert caught.value.rank == 1
    if how == "for good":
        assert str(caught.value).startswith("rank 1 ended itself with exit code 3")
    else:
        assert str(caught.value).startswith("rank 1 failed first: ValueError: the wire is cut")
