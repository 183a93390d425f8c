"""Collectives from send and receive: values, what they leave alone, and bytes on the wire."""

import pytest
import torch

from utils.ranks import run_ranks
from utils.techniques import ring

ALL_REDUCES = ("gather_all_reduce", "whole_ring_all_reduce", "chunked_ring_all_reduce")
SIZES = (1, 3, 1000, 1003)
DTYPES = (torch.float32, torch.float64, torch.int64)


def values_of(rank, size, dtype=torch.float64):
    generator = torch.Generator().manual_seed(100 * size + rank)
    return torch.randint(-1000, 1000, (size,), generator=generator).to(dtype)  # sums are exact


def all_reduces(rank, world_size):
    results = {}
    for name in ALL_REDUCES:
        for size in SIZES:
            for dtype in DTYPES:
                tensor = values_of(rank, size, dtype)
                getattr(ring, name)(tensor, rank, world_size)
                results[name, size, dtype] = tensor
    matrix = values_of(rank, 12).view(3, 4)
    ring.chunked_ring_all_reduce(matrix, rank, world_size)
    return results, matrix


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_all_reduce_leaves_the_same_sum_on_every_rank(world_size):
    by_rank = run_ranks(all_reduces, world_size)
    for results, matrix in by_rank:
        for (_, size, dtype), got in results.items():
            expected = sum(values_of(rank, size, dtype) for rank in range(world_size))
            assert torch.equal(got, expected)
        assert torch.equal(matrix, sum(values_of(r, 12).view(3, 4) for r in range(world_size)))


def halves(rank, world_size, size):
    flat_P = values_of(rank, world_size * size)
    before, shard_S, gathered_P = flat_P.clone(), torch.empty(size).double(), torch.empty(
        world_size * size).double()  # fmt: skip
    ring.ring_reduce_scatter(shard_S, flat_P, rank, world_size)
    kept = torch.equal(flat_P, before)
    ring.ring_all_gather(gathered_P, shard_S, rank, world_size)
    return kept, shard_S, gathered_P


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_two_halves_of_the_ring(world_size):
    expected = sum(values_of(rank, 5 * world_size) for rank in range(world_size))
    for rank, (kept, shard_S, gathered_P) in enumerate(run_ranks(halves, world_size, 5)):
        assert kept, "reduce-scatter changed its input"
        assert torch.equal(shard_S, expected.chunk(world_size)[rank])
        assert torch.equal(gathered_P, expected)


def in_subgroups(rank, world_size):
    import torch.distributed as dist

    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    tensor = torch.tensor([float(rank)])
    ring.chunked_ring_all_reduce(tensor, rank // 2, 2, groups[rank % 2])
    return tensor.item()


def test_a_group_of_some_ranks_has_its_own_neighbours():
    assert run_ranks(in_subgroups, 4) == [2.0, 4.0, 2.0, 4.0]


def test_sizes_that_make_no_shards_are_refused_before_anything_is_sent():
    for collective in (lambda f, s: ring.ring_reduce_scatter(s, f, 0, 2),
                       lambda f, s: ring.ring_all_gather(f, s, 0, 2)):  # fmt: skip
        with pytest.raises(ValueError, match="pad the flat tensor to a multiple"):
            collective(torch.zeros(7), torch.zeros(3))
