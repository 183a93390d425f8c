"""The ladder: one change a rung, bytes by the formula, losses by hand, ranks that take no part."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from utils.config import GPTConfig
from utils.corpus import load_corpus
from utils.experiments import ladder
from utils.experiments.ladder import (
    CONFIG,
    RUNGS,
    Rung,
    changed_things,
    climb,
    rungs_of,
    schedule_of,
    weigh,
)
from utils.experiments.ladder_ranks import MIN_ROUNDS, Schedule, train_entries, weigh_entries
from utils.experiments.ladder_rungs import THINGS, world_size_of
from utils.model import build_gpt, next_token_loss
from utils.peers.harness import measure_system
from utils.planning.recipe_bytes import recipe_bytes
from utils.ranks import RankError, run_ranks
from utils.recipe import TrainingRecipe
from utils.trainer.systems import job_of, system_of

SMALL = GPTConfig(num_layers=2, num_heads=2, model_dim=16, context_length=16)
NUM_ROUNDS = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"{n} times {n} is {n * n}, and so on. " for n in range(900)))
    return load_corpus(path)


@pytest.fixture(scope="module")
def results(corpus):
    return climb(SMALL, corpus, num_rounds=NUM_ROUNDS, budget_s=600.0)


def by_hand(recipe, corpus):
    """The plain loop on the climb's own text: one process, fp32, nothing of `utils.trainer`."""
    schedule = schedule_of(RUNGS, SMALL, corpus, NUM_ROUNDS, 0)
    model = build_gpt(SMALL)
    adam = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate)
    for batch in schedule.rounds:
        for step in zip(*(each.split(recipe.sequences_per_step) for each in batch), strict=True):
            next_token_loss(model, *step).backward()
            adam.step()
            adam.zero_grad()
    with torch.no_grad():
        return next_token_loss(model, *schedule.held_out).item()


def test_each_rung_changes_one_thing():
    assert len(RUNGS) == 8 and len({rung.name for rung in RUNGS}) == 8
    things = [
        changed_things(below.recipe, rung.recipe)
        for below, rung in pairwise(RUNGS)
    ]
    assert [len(each) for each in things] == [1] * 7
    order = ["precision", "attention", "checkpointing", "batch", "method", "method", "method"]
    assert [thing for (thing,) in things] == order
    known = set(vars(TrainingRecipe())) - {"batch_size", "micro_batches"} | {"sequences_per_step"}
    assert {name for names in THINGS.values() for name in names} == known


def test_ranks_cut_the_same_step_in_parts():
    assert [rung.recipe.sequences_per_step for rung in RUNGS] == [2] * 4 + [4] * 4
    assert {rung.recipe.library for rung in RUNGS[5:]} == {"ours"}


def test_the_last_two_rungs_differ_by_the_method_alone():
    fsdp, yafsdp = RUNGS[-2].recipe, RUNGS[-1].recipe
    assert replace(fsdp, method="yafsdp") == yafsdp
    assert RUNGS[0].recipe == TrainingRecipe(attention="explicit", batch_size=2)


def test_a_rung_that_mixes_two_changes_is_seen():
    mixed = TrainingRecipe("bf16", checkpointing="blocks")
    assert changed_things(TrainingRecipe(), mixed) == ["precision", "checkpointing"]
    assert changed_things(mixed, mixed) == []


def test_bytes_are_the_planners_within_two_percent_and_fall_as_the_rungs_promise():
    sizes = weigh()
    for rung, size in zip(RUNGS, sizes, strict=True):
        assert recipe_bytes(rung.recipe, CONFIG).peak.total == pytest.approx(
            size.peak_bytes, rel=0.02
        ), rung.name
    fp32, bf16, fused, again, bigger, ddp, fsdp, yafsdp = (size.peak_bytes for size in sizes)
    assert fp32 > bf16 > fused > again < bigger and again < ddp
    assert fsdp < yafsdp < ddp
    held = [size.held_bytes for size in sizes]
    assert held[0] == held[5] and held[6] == pytest.approx(held[0] / 2, rel=0.01)


def test_bytes_are_the_harnesss_and_the_climbs_have_them_too(results):
    pairs = list(zip(RUNGS, weigh(RUNGS, SMALL), results, strict=True))
    for rung, size, result in (pairs[0], pairs[4], pairs[7]):
        job = job_of(rung.recipe, SMALL)
        ranks = rung.recipe.num_ranks
        alone = run_ranks(measure_system, ranks, system_of(rung.recipe), job, backend="gloo")
        assert max(each.peak_bytes for each in alone) == size.peak_bytes == result.peak_bytes
        assert result.held == size.held


def test_every_rung_saw_the_same_tokens_in_its_own_steps(results):
    assert {each.num_tokens for each in results} == {(1 + NUM_ROUNDS) * 4 * 16}
    assert [each.num_updates for each in results] == [10] * 4 + [5] * 4
    assert all(len(each.timing.runs_s) == NUM_ROUNDS for each in results)
    assert all(0 < each.step_s < 60 and not each.problem for each in results)


def test_the_loss_is_that_of_a_plain_loop(results, corpus):
    losses = {}
    for each in results:
        size = each.rung.recipe.sequences_per_step
        losses.setdefault(size, by_hand(each.rung.recipe, corpus))
        limit = 1e-5 if each.rung.recipe.precision == "fp32" else 5e-3
        assert each.loss == pytest.approx(losses[size], abs=limit), each.rung.name
    assert losses[2] < losses[4]  # fewer updates with the same tokens


def test_in_fp32_every_rung_of_one_batch_learns_the_same(corpus):
    rungs = [
        Rung(str(number), replace(rung.recipe, precision="fp32", batch_size=size))
        for number, rung in enumerate(RUNGS)
        for size in (4 // rung.recipe.num_ranks,)
    ]
    losses = [each.loss for each in climb(SMALL, corpus, rungs, MIN_ROUNDS, 600.0)]
    assert losses == pytest.approx([losses[0]] * len(losses), abs=1e-5)


def test_micro_batches_make_one_update():
    recipe = TrainingRecipe(batch_size=2, micro_batches=3)
    tokens_BT = torch.zeros(12, 16, dtype=torch.long)
    schedule = Schedule([(tokens_BT, tokens_BT)] * 4, budget_s=600.0)
    (report,) = run_ranks(train_entries, 1, [(recipe, SMALL)], schedule)
    assert len(report.seconds[0]) == 3 and report.losses == [None]
    assert all(step.total_s > step.update_s > 0 for step in report.seconds[0])


def test_a_rank_that_a_recipe_does_not_use_only_waits():
    tokens_BT = torch.zeros(4, 16, dtype=torch.long)
    entries = [(TrainingRecipe(), SMALL), (TrainingRecipe(method="ddp", num_ranks=2), SMALL)]
    entries = [(replace(recipe, batch_size=2), config) for recipe, config in entries]
    schedule = Schedule([(tokens_BT, tokens_BT)] * 9, (tokens_BT, tokens_BT), budget_s=0.0)
    first, second = run_ranks(train_entries, 2, entries, schedule)
    assert first.num_rounds == second.num_rounds == 1 + MIN_ROUNDS  # over budget from the start
    assert len(first.seconds[0]) == len(first.seconds[1]) == len(second.seconds[1]) == MIN_ROUNDS
    assert second.seconds[0] is None and second.losses == [None, None]
    assert all(loss > 0 for loss in first.losses)


def _weigh_without_memory(rank, world_size, entries):
    from utils.experiments import ladder_ranks

    def fails(*args):
        raise torch.OutOfMemoryError("out of memory")

    ladder_ranks.measure_system = fails  # in this rank's process only
    return weigh_entries(rank, world_size, entries)


def test_a_rung_without_memory_says_so_and_the_others_climb(corpus, monkeypatch):
    assert run_ranks(_weigh_without_memory, 1, [(TrainingRecipe(), SMALL)]) == [[None]]
    with pytest.raises(RankError, match="out of memory"):  # two ranks would wait for each other
        run_ranks(_weigh_without_memory, 2, [(RUNGS[-1].recipe, SMALL)])
    whole = weigh(RUNGS[:2], SMALL)
    monkeypatch.setattr(ladder, "weigh", lambda *args: [None, whole[1]])
    first, second = climb(SMALL, corpus, RUNGS[:2], MIN_ROUNDS, 0.0)
    assert first.problem == ladder.NO_MEMORY and first.timing is None
    assert not second.problem and second.peak_bytes == whole[1].peak_bytes
    monkeypatch.setattr(ladder, "weigh", lambda *args: [None])
    assert climb(SMALL, corpus, RUNGS[:1])[0].problem == ladder.NO_MEMORY


def test_a_climb_that_cannot_be_is_refused_before_it_starts():
    with pytest.raises(ValueError, match="at least 3 rounds, not 2"):
        climb(SMALL, num_rounds=2)
    with pytest.raises(ValueError, match="have no rung"):
        climb(SMALL, rungs=())
    four = rungs_of(num_ranks=4)
    with pytest.raises(ValueError, match="2 and 4"):
        world_size_of([RUNGS[-1].recipe, four[-1].recipe])
    assert [rung.name for rung in four[-3:]] == ["4 x DDP", "4 x FSDP", "4 x YaFSDP"]
    assert world_size_of([rung.recipe for rung in RUNGS[:5]]) == 1
