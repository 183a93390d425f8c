"""One unit's shard: where values lie, when memory exists, what a lane is told, two levels."""

import torch
from torch import nn

from utils.ranks import run_ranks
from utils.techniques.flat import split_into_units
from utils.techniques.flat_shard import FlatShard
from utils.techniques.lane import InlineLane
from utils.techniques.sharding import Sharding, group_of_two_levels


class NotedLane(InlineLane):
    """Notes what is issued."""

    def __init__(self):
        self.notes = []

    def issue(self, collective, num_bytes, name):
        self.notes.append((name, num_bytes))
        return super().issue(collective, num_bytes, name)


def two_layers():
    """9 and 4 values: together no multiple of 2 or 3."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(1, 4, bias=False))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter) + 100 * number)
    return model


def shard_of(model, rank, world_size, lane=None, **options):
    unit = split_into_units(model, [], world_size)[0]
    return FlatShard(unit, Sharding(rank, world_size, **options), lane or NotedLane())


def values(rank, world_size):
    model = two_layers()
    shard = shard_of(model, rank, world_size)
    found = {"shard": shard.shard_S.tolist()}
    found["freed"] = [p.isnan().all().item() for p in model.parameters()]
    found["shapes"] = [tuple(p.shape) for p in model.parameters()]
    found["bytes freed"] = shard.flat_P.untyped_storage().nbytes()
    shard.start_gather()
    shard.start_gather()  # is there already
    shard.finish_gather()
    found["whole"] = torch.cat([p.flatten() for p in model.parameters()]).tolist()
    found["bytes whole"] = shard.flat_P.untyped_storage().nbytes()
    shard.free()
    shard.free()
    found["exact"] = [each.flatten().tolist() for each in shard.whole_values().values()]
    found["notes"] = shard.lane.notes
    return found


def test_shards_padding_memory_and_messages():
    for rank, found in enumerate(run_ranks(values, 3, quiet=True)):
        everything = [*map(float, range(9)), 100.0, 101.0, 102.0, 103.0]
        assert found["shard"] == [*everything, 0.0, 0.0][5 * rank : 5 * rank + 5]
        assert found["freed"] == [True, True] and found["bytes freed"] == 0
        assert found["shapes"] == [(3, 3), (4, 1)]
        assert found["whole"] == everything and found["bytes whole"] == 15 * 4
        assert found["exact"] == [everything[:9], everything[9:]]
        assert found["notes"] == [("gather root", 2 * 5 * 4)]


def reductions(rank, world_size):
    model = two_layers()
    shard = shard_of(model, rank, world_size, compute_dtype=torch.bfloat16)
    parameters = list(model.parameters())
    shard.start_gather()
    shard.finish_gather()
    for step in range(2):
        parameters[0].grad = torch.full((3, 3), 1.0 + rank + 10 * step, dtype=torch.bfloat16)
        if step == 0:
            shard.keep_gradients()
            kept = parameters[0].grad is None, shard.waiting_P.dtype
    shard.start_reduce().wait()
    first = shard.shard_S.grad.clone()
    parameters[1].grad = torch.full((4, 1), 4.0 * rank, dtype=torch.bfloat16)
    shard.start_reduce().wait()
    return kept, first, shard.shard_S.grad, [p.grad for p in parameters], shard.lane.notes[1:]


def test_gradients_wait_in_the_format_of_messages_and_shards_add_up():
    parts = run_ranks(reductions, 2, quiet=True)
    first, second = (torch.cat([part[place] for part in parts]) for place in (1, 2))
    assert first.tolist() == [13.0] * 9 + [0.0] * 5  # (1 + 11 + 2 + 12) / 2, padding at the end
    assert second.tolist() == [13.0] * 9 + [2.0] * 4 + [0.0]
    for kept, _, _, gradients, notes in parts:
        assert kept == (True, torch.float32) and gradients == [None, None]
        assert notes == [("reduce root", 7 * 4)] * 2


def hybrid(rank, world_size):
    group, replicas = group_of_two_levels(rank, world_size, 2)
    model, lane = two_layers(), NotedLane()
    sharding = Sharding(rank % 2, 2, group, 2, replicas)
    unit = split_into_units(model, [], 2)[0]
    shard = FlatShard(unit, sharding, lane)
    shard.start_gather()
    shard.finish_gather()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0**rank)
    shard.start_reduce().wait()
    ranks = [torch.distributed.get_process_group_ranks(each) for each in (group, replicas)]
    return shard.shard_S.grad.tolist(), ranks, lane.notes


def test_two_levels_neighbours_share_and_replicas_agree():
    for rank, (gradient, ranks, notes) in enumerate(run_ranks(hybrid, 4, quiet=True)):
        assert gradient[:6] == [15 / 4] * 6 and gradient[6] == (15 / 4 if rank % 2 == 0 else 0.0)
        assert ranks == [[rank - rank % 2, rank - rank % 2 + 1], [rank % 2, rank % 2 + 2]]
        # Between neighbours half of the weights; then the shard once, as an all-reduce of two.
        assert notes == [("gather root", 28), ("reduce root", 28 + 28)]
