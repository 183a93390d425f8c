"""Clipping by the global norm of gradients that are spread over ranks, against torch's."""

import math

import pytest
import torch

from utils.ranks import run_ranks
from utils.techniques.clipping import clip_by_global_norm, global_norm


def whole():
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(size, generator=generator) * 2 for size in (12, 1, 30)]


def mine(rank, world_size):
    """This rank's parts; a gradient of one value is on one rank, the others have padding."""
    padded = [torch.nn.functional.pad(each, (0, -len(each) % world_size)) for each in whole()]
    return [each.chunk(world_size)[rank].clone() for each in padded]


def clip(rank, world_size, max_norms):
    found = []
    for max_norm in max_norms:
        parts = mine(rank, world_size)
        found.append((clip_by_global_norm(parts, max_norm), parts))
    nothing = global_norm(mine(rank, world_size) if rank == 0 else [])
    return found, nothing


@pytest.mark.parametrize("world_size", [1, 3])
def test_norm_and_gradients_equal_torchs(world_size):
    max_norms = [0.1, 5.0, 1e6, math.inf]
    by_rank = run_ranks(clip, world_size, max_norms)
    for number, max_norm in enumerate(max_norms):
        parameters = [torch.nn.Parameter(torch.zeros_like(each)) for each in whole()]
        for parameter, gradient in zip(parameters, whole(), strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        for found, _ in by_rank:
            assert found[number][0].item() == pytest.approx(norm.item(), rel=1e-6)
            assert found[number][0].dtype == torch.float64
        for place, parameter in enumerate(parameters):
            parts = torch.cat([found[number][1][place] for found, _ in by_rank])
            torch.testing.assert_close(
                parts[: parameter.numel()], parameter.grad, rtol=1e-6, atol=0
            )
            assert max_norm < 1e3 or torch.equal(parts[: parameter.numel()], whole()[place])


def test_a_rank_without_gradients_takes_part():
    parts = mine(0, 3)
    expected = torch.cat(parts).double().norm()
    for _, norm in run_ranks(clip, 3, [1.0]):
        torch.testing.assert_close(norm, expected)


def not_finite(rank, world_size):
    found = []
    for bad in (math.inf, math.nan, 3e38):
        parts = [torch.ones(2), torch.full((1,), bad if rank == 1 else 1.0)]
        norm = clip_by_global_norm(parts, 1.0)
        found.append((norm.item(), torch.cat(parts)))
    return found


def test_what_is_not_finite_shows_on_all_ranks_and_large_squares_do_not_overflow():
    for rank, found in enumerate(run_ranks(not_finite, 2)):
        (infinite, zeros), (nan, nans), (large, scaled) = found
        assert infinite == math.inf and math.isnan(nan) and nans.isnan().all()
        assert zeros[:2].tolist() == [0.0, 0.0]  # what torch's function does with them
        assert zeros[2].isnan().item() == (rank == 1)
        assert large == pytest.approx(3e38) and scaled.isfinite().all()
        assert rank == 0 or scaled[2].item() == pytest.approx(1.0)


def in_group(rank, world_size):
    groups = [torch.distributed.new_group([0, 2]), torch.distributed.new_group([1, 3])]
    return global_norm([torch.tensor([float(rank + 1)])], groups[rank % 2]).item()


def test_only_the_groups_ranks_count():
    even, odd = math.hypot(1, 3), math.hypot(2, 4)
    assert run_ranks(in_group, 4) == pytest.approx([even, odd, even, odd])


def test_a_norm_that_is_not_positive_is_refused():
    for bad in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"max_norm must be greater than 0, not {bad}"):
            clip_by_global_norm([torch.ones(1)], bad)
