"""What lab 07's checks compare with is true: bills, mistakes, one process, files."""

import pytest
import torch

from utils.checks import truth_07_clip as clip
from utils.checks import truth_07_resume as resume
from utils.checks import truth_07_scatter as scatter
from utils.checks import truth_07_shards as shards
from utils.checks.helpers import NotYet
from utils.checks.truth_07_bill import CASES as BILLS
from utils.checks.truth_07_bill import Case as Bill
from utils.checks.truth_07_bill import held_bytes, sent_bytes
from utils.checks.truth_07_bill_mistakes import held_mistakes, sent_mistakes
from utils.checks.truth_07_scatter_memory import explanations, gradients_by_rank, shard_of
from utils.model import build_gpt
from utils.peers import TrainingJob
from utils.peers.harness import measure_system, train_system
from utils.peers.ours import zero_system
from utils.ranks import run_ranks
from utils.techniques.flat import split_into_units
from utils.techniques.zero_checkpoint import cut

NUM_RANKS, COUNTER_BYTES = 3, 4


@pytest.mark.parametrize("low_precision", [False, True])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_bill_is_what_the_meter_and_the_ledger_say(stage, low_precision):
    job = TrainingJob(
        batch_size=6, num_steps=2, num_micro_batches=2, low_precision=low_precision
    )
    units = split_into_units(model := build_gpt(job.config), model.blocks, NUM_RANKS)
    sizes = tuple(tuple(unit.layout.sizes) for unit in units)
    bill = Bill(sizes, stage, NUM_RANKS, 2 if low_precision else 4, job.num_micro_batches)
    held = run_ranks(measure_system, NUM_RANKS, zero_system(stage), job)
    assert {run.held_bytes for run in held} == {held_bytes(bill) + COUNTER_BYTES * len(units)}
    sent = run_ranks(train_system, NUM_RANKS, zero_system(stage), job)
    assert {run.sent_bytes for run in sent} == {sent_bytes(bill)}


@pytest.mark.parametrize("formula, mistakes", [
    (held_bytes, held_mistakes()), (sent_bytes, sent_mistakes()),
])  # fmt: skip
def test_each_mistake_in_a_bill_shows_in_some_case(formula, mistakes):
    for text, variant in mistakes:
        assert any(variant(case) != formula(case) for case in BILLS), text


@pytest.mark.parametrize("num_ranks", [3, 4])
@pytest.mark.parametrize("case", shards.CASES, ids=lambda case: case.name)
def test_adam_in_shards_equals_adam(case, num_ranks):
    parts = shards.padded(shards.flat(case.tensors(seed=0)), num_ranks).chunk(num_ranks)
    parts = [part.clone() for part in parts]
    optimizers = [shards.plain_adam([part]) for part in parts]
    for step in range(shards.NUM_STEPS):
        gradients = shards.padded(shards.flat(case.gradients(step)), num_ranks).chunk(num_ranks)
        for part, gradient, optimizer in zip(parts, gradients, optimizers, strict=True):
            part.grad = gradient.clone()
            optimizer.step()
    whole_P = torch.cat(parts)[: case.num_values]
    assert torch.allclose(whole_P, shards.truth_P(case, shards.NUM_STEPS), rtol=1e-6)


ALL_STEPS = (*scatter.EASY_STEPS, *scatter.ORDER_STEPS, *scatter.HARD_STEPS)


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("step", ALL_STEPS, ids=lambda step: step.name)
def test_the_true_shards_are_those_of_one_backward_over_all_ranks(step, num_ranks):
    model = scatter.Paths()
    for micro in range(len(step.micro)):
        for rank in range(num_ranks):
            loss = model(scatter.inputs_BD(micro, rank), step.path(micro, rank))
            (loss / num_ranks).backward()
    for name, parameter in scatter.trained(model).items():
        found = [explanations(step, name, rank, num_ranks)[0] for rank in range(num_ranks)]
        padded = shards.padded(parameter.grad.flatten(), num_ranks)
        assert torch.allclose(torch.cat(found), padded, rtol=1e-4, atol=1e-6)


def test_no_two_parameters_are_of_one_size_and_every_path_matters():
    for num_ranks in (2, 3):
        parameters = scatter.trained(scatter.Paths()).values()
        sizes = [scatter.shard_values(each, num_ranks) for each in parameters]
        assert len(set(sizes)) == len(sizes)
    (by_rank,) = [gradients_by_rank(scatter.HARD_STEPS[0], 0, 3)]
    assert [bool(each["right"].any()) for each in by_rank] == [True, False, True]
    assert len(shard_of(by_rank[0]["left"], 2, 3)) == 17


def tells_another_thing(rank, world_size):
    wire = scatter.Wire(scatter.Paths(), rank, world_size)
    wire.tell(2)
    try:
        wire.tell(rank - 1)
    except NotYet as wrong:
        return str(wrong)
    return "no difference"


def test_ranks_that_differ_say_so_together():
    texts = set(run_ranks(tells_another_thing, 2))
    assert len(texts) == 1
    assert "rank 0 has finished, while rank 1 sends first" in texts.pop()


@pytest.mark.parametrize("case", clip.CASES, ids=lambda case: case.name)
def test_shards_to_be_clipped_make_up_the_gradients(case):
    by_rank = [case.shards(rank) for rank in range(clip.NUM_RANKS)]
    for place, size in enumerate(case.sizes):
        whole = torch.cat([each[place] for each in by_rank])
        assert torch.equal(whole[:size].double(), case.sums[place])
        real = sum(case.num_mine(place, rank) for rank in range(clip.NUM_RANKS))
        assert real == size
    flat = torch.cat(case.sums) / case.num_micro
    assert (case.factor * flat).norm().item() <= case.max_norm * 1.001


def test_mistakes_in_a_norm_lead_to_norms_of_their_own():
    case = clip.CASES[0]
    for rank in range(clip.NUM_RANKS):
        by_text = {}
        for text, norm in clip.norm_mistakes(case, rank):
            assert norm != pytest.approx(case.norm, rel=1e-3), text
            by_text.setdefault(text, []).append(norm)
        norms = [norm for norms in by_text.values() for norm in norms]
        assert len({round(norm, 4) for norm in norms}) >= len(norms) - 1


@pytest.mark.parametrize("case", resume.CASES, ids=str)
def test_true_new_shards_are_the_lessons_and_need_these_files(case):
    files = [resume.file(case, rank) for rank in range(case.old)]
    for rank in range(case.new):
        touched = set()
        for unit, size in enumerate(case.sizes):
            old, new = (resume.shard_values(size, n) for n in (case.old, case.new))
            pieces = [(r * old, each[unit]["exp_avg"]) for r, each in enumerate(files)]
            found = cut(pieces, rank * new, new, size)
            assert torch.equal(found, resume.shard(case, unit, "exp_avg", case.new, rank, 0.0))
            for r in range(case.old):  # a file that is lost matters if it is needed
                others = [(at, 0 * piece) if at == r * old else (at, piece)
                          for at, piece in pieces]  # fmt: skip
                if not torch.equal(cut(others, rank * new, new, size), found):
                    touched.add(r)
        assert touched == case.needed(rank)


def test_each_mistake_in_resharding_shows_somewhere():
    shown = set()
    for case in resume.CASES:
        for rank in range(case.new):
            true = resume.shard(case, 0, "master", case.new, rank, 0.0)
            found = resume.mistakes(case, 0, "master", rank)
            shown |= {text for text, value in found if not torch.equal(value, true)}
    assert len(shown) >= 8
