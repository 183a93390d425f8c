"""What lab 06's checks compare with is true: best cuts, mistakes, the late link, feedback."""

import itertools

import pytest
import torch

from utils.checks.late_link import LateLink
from utils.checks.truth_06_buckets import CASES, best_counts
from utils.checks.truth_06_compression import FORGOTTEN, drift_in_roundings, simulated_KP
from utils.checks.truth_06_overlap import (
    EASY_STEPS,
    TwoPaths,
    inputs_BD,
    one_process,
    sending_order,
)
from utils.checks.truth_06_tokens import EASY_CASES, HARD_CASES, clipped, mistakes
from utils.ranks import run_ranks


@pytest.mark.parametrize("case", CASES[:-1], ids=lambda case: case.name)
def test_no_way_to_cut_ends_before_the_best_one(case):
    num_gradients, ends = len(case.ready_s), []
    for cuts in itertools.product([False, True], repeat=num_gradients - 1):
        places = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), num_gradients]
        ends.append(case.end_s([b - a for a, b in itertools.pairwise(places)]))
    best = best_counts(case.ready_s, case.num_bytes, case.link)
    assert case.end_s(best) == pytest.approx(min(ends), rel=1e-12)


@pytest.mark.parametrize("case", (*EASY_CASES, *HARD_CASES), ids=lambda case: case.name)
def test_most_mistakes_show_in_every_case(case):
    truth_P = clipped(case.mean_P(), case.max_norm)
    for rank in range(len(case.tokens)):
        values = [value for _, value in mistakes(case, rank)]
        assert all(value.shape == truth_P.shape for value in values)
        assert sum(not torch.allclose(value, truth_P) for value in values) >= 8


def test_one_process_adds_up_the_gradients_of_all_ranks():
    (first, _) = one_process(EASY_STEPS, 2)
    model = TwoPaths(seed=0)
    for rank in range(2):
        (model(inputs_BD(0, rank), EASY_STEPS[0].path(rank)) / 2).backward()
    for name in sending_order():
        assert torch.allclose(model.get_parameter(name).grad, first.mean[name], rtol=1e-6)


def late(rank, world_size):
    tensors = [torch.full((2,), 1.0 + rank), torch.full((2,), 10.0)]
    link = LateLink(torch.nn.Linear(1, 1))
    works = [link.start_sum(tensor) for tensor in tensors]
    before = torch.stack(tensors)
    works[1].wait()
    return before, torch.stack(tensors), link.log.names("waited"), len(link.messages)


def test_a_late_link_delivers_what_is_waited_for_and_nothing_else():
    for rank, (before, after, waited, num_messages) in enumerate(run_ranks(late, 2)):
        assert before.tolist() == [[1.0 + rank] * 2, [10.0] * 2]
        assert after.tolist() == [[1.0 + rank] * 2, [20.0] * 2]
        assert waited == ["no gradient"] and num_messages == 2


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_only_feedback_on_both_ways_keeps_the_sum(num_ranks):
    assert drift_in_roundings(simulated_KP(num_ranks), num_ranks) < 1
    assert drift_in_roundings(simulated_KP(num_ranks, 500), num_ranks) < 1
    for _, own, back in FORGOTTEN:
        assert drift_in_roundings(simulated_KP(num_ranks, own=own, back=back), num_ranks) > 2.5
