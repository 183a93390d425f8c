"""Muon: the polynomial against the decomposition, the step against torch's own, what it refuses."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.techniques.muon import Muon, newton_schulz_flops, orthogonalise, split_parameters

SHAPES = [(8, 8), (32, 8), (8, 32), (1, 16)]


def random_matrix(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_end_near_one_and_directions_stay(shape):
    matrix_RC = random_matrix(shape)
    u, s, v = torch.linalg.svd(matrix_RC, full_matrices=False)
    out_RC = orthogonalise(matrix_RC)
    assert out_RC.shape == matrix_RC.shape
    new_s = u.mT @ out_RC @ v.mT
    off_diagonal = new_s - torch.diag(new_s.diagonal())
    assert off_diagonal.abs().max() < 1e-4  # the same U and V
    kept = s > 0.02 * s.max()
    assert ((0.6 < new_s.diagonal()) & (new_s.diagonal() < 1.3))[kept].all()


def test_a_zero_matrix_stays_zero_and_the_scale_does_not_matter():
    assert orthogonalise(torch.zeros(4, 6)).abs().max() == 0
    matrix_RC = random_matrix((6, 4))
    torch.testing.assert_close(
        orthogonalise(matrix_RC), orthogonalise(1e4 * matrix_RC), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_torch(shape):
    """torch's iterates in bf16, so single updates agree to its precision only."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    ours, theirs = (nn.Parameter(random_matrix(shape)) for _ in range(2))
    start = ours.detach().clone()
    mine = Muon([ours], lr=0.02, momentum=0.9, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.1)
    for number in range(4):
        ours.grad = random_matrix(shape, seed=number + 1)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    moved = (start - theirs).norm()
    assert (ours - theirs).norm() < 0.05 * moved


def test_momentum_and_decay_by_hand():
    weight = nn.Parameter(torch.eye(2))
    optimizer = Muon([weight], lr=0.1, momentum=0.5, weight_decay=1.0)
    gradient = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    weight.grad = gradient
    optimizer.step()
    # momentum 0.5 g; a look ahead: 0.5 g + 0.5 * 0.5 g = 0.75 g, whose scale falls out
    expected = 0.9 * torch.eye(2) - 0.1 * orthogonalise(0.75 * gradient)
    torch.testing.assert_close(weight.detach(), expected)
    assert list(optimizer.state[weight]) == ["momentum"]
    torch.testing.assert_close(optimizer.state[weight]["momentum"], 0.5 * gradient)


def test_a_parameter_without_a_gradient_is_left_alone():
    weight = nn.Parameter(torch.ones(2, 2))
    Muon([weight]).step()
    assert (weight == 1).all()


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), ()])
def test_only_matrices_are_taken(shape):
    with pytest.raises(ValueError, match="give that one to AdamW"):
        Muon([nn.Parameter(torch.zeros(shape))])


@pytest.mark.parametrize("tied", [False, True])
def test_a_gpt_is_split_into_matrices_of_blocks_and_the_rest(tied):
    model = build_gpt(GPTConfig(3, 2, 8, 8, 16, tied_embeddings=tied))
    hidden, rest = split_parameters(model)
    assert len(hidden) == 3 * 4 and all(p.dim() == 2 for p in hidden)
    assert {id(p) for p in hidden}.isdisjoint(map(id, rest))
    assert {*map(id, hidden), *map(id, rest)} == set(map(id, model.parameters()))
    assert model.token_embedding.weight is rest[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_flops_are_those_that_torch_counts(shape):
    with FlopCounterMode(display=False) as counter:
        orthogonalise(random_matrix(shape))
    assert counter.get_total_flops() == newton_schulz_flops(*shape)
