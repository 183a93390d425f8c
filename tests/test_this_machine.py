"""Seconds from smaller steps: straight lines on made-up timings, and what was really timed."""

from dataclasses import replace

import pytest

from utils.config import GPTConfig
from utils.experiments.ladder import CONFIG, RUNGS
from utils.experiments.ladder_ranks import RankReport, StepSeconds
from utils.planning import this_machine
from utils.planning.this_machine import (
    PARTS,
    SHAPES,
    MachineTimes,
    along,
    calibrate,
    simpler_ways,
    small_seconds,
    way_of,
)
from utils.recipe import TrainingRecipe

RECIPES = [rung.recipe for rung in RUNGS]
SMALL = GPTConfig(num_layers=4, num_heads=2, model_dim=16, context_length=16)


def made_up_s(recipe, layers, sequences):
    """Forward and backward of a machine that is as straight as the model: each way has its cost."""
    call_s = 1e-3 * (1 + 2 * (recipe.precision == "bf16") + 3 * (recipe.num_ranks > 1))
    product_s = 2e-3 * (1 + (recipe.attention == "fused") + (recipe.checkpointing == "blocks"))
    outside_s = 4e-3 + 1e-3 * sequences + 5e-4 * (recipe.method == "fsdp")
    return outside_s + layers * (call_s + product_s * sequences)


def update_s(recipe, layers):
    return (1e-3 + 2e-3 * layers) / recipe.num_ranks


def made_up_ranks(worker, world_size, entries, schedule, **options):
    """In place of run_ranks: every round takes what the formula says, the second rank less."""
    made_up_ranks.entries, made_up_ranks.schedule = entries, schedule

    def steps(rank, recipe, config):
        if rank >= recipe.num_ranks:
            return None
        update = update_s(recipe, config.num_layers)
        passes = made_up_s(recipe, config.num_layers, recipe.batch_size)
        return [StepSeconds((passes + update) / (1 + rank), update / (1 + rank))] * 5

    seconds = [[steps(rank, *entry) for entry in entries] for rank in range(world_size)]
    return [RankReport(each, [None] * len(entries), 6) for each in seconds]


@pytest.fixture
def times(monkeypatch):
    monkeypatch.setattr(this_machine, "run_ranks", made_up_ranks)
    return calibrate(RECIPES, CONFIG)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_straight_machine_is_predicted_exactly(times, rung):
    recipe = rung.recipe
    expected_s = made_up_s(recipe, 4, recipe.batch_size) + update_s(recipe, 4)
    assert times.step_s(recipe) == pytest.approx(expected_s)
    deep = made_up_s(recipe, 48, recipe.batch_size) + update_s(recipe, 48)
    assert times.step_s(recipe, 48) == pytest.approx(deep)


def test_no_rung_is_among_what_was_timed(times):
    timed = {
        (way_of(recipe), config.num_layers, recipe.batch_size)
        for recipe, config in made_up_ranks.entries
    }
    for recipe in RECIPES:
        assert (way_of(recipe), CONFIG.num_layers, recipe.batch_size) not in timed
    assert len(timed) == len(made_up_ranks.entries) == 7 * len(SHAPES)
    assert all(config.num_layers < CONFIG.num_layers for _, config in made_up_ranks.entries)


def test_every_small_step_divides_the_sequences_and_is_done_once_a_round(times):
    schedule = made_up_ranks.schedule
    assert schedule.most_steps == 1 and schedule.held_out is None
    for recipe, _ in made_up_ranks.entries:
        assert len(schedule.rounds[0][0]) % recipe.sequences_per_step == 0


def test_parts_add_up_and_each_has_its_own_reason(times):
    fp32, *_, bigger, ddp, fsdp, _ = RECIPES
    for recipe in RECIPES:
        parts = times.parts(recipe)
        assert tuple(parts) == PARTS
        assert sum(parts.values()) == pytest.approx(times.step_s(recipe))
    assert times.parts(fp32)["run again"] == times.parts(fp32)["spread over ranks"] == 0
    assert times.parts(bigger)["run again"] == pytest.approx(4 * 2e-3 * 4)
    assert times.parts(ddp)["spread over ranks"] == pytest.approx(4 * 3e-3)
    assert times.parts(fsdp)["spread over ranks"] == pytest.approx(4 * 3e-3 + 5e-4)
    assert times.parts(ddp)["optimizer"] == pytest.approx(update_s(ddp, 4))
    assert 2 * times.parts(ddp)["run again"] == pytest.approx(times.parts(bigger)["run again"])


def test_micro_batches_repeat_all_but_the_update(times):
    once, thrice = RECIPES[0], replace(RECIPES[0], micro_batches=3)
    once_s, update = times.step_s(once), times.parts(once)["optimizer"]
    assert times.step_s(thrice) == pytest.approx(3 * (once_s - update) + update)


def test_what_was_timed_is_not_predicted_and_what_was_not_is_refused(times):
    with pytest.raises(ValueError, match="3 layers on 1 sequences were timed"):
        times.step_s(replace(RECIPES[0], batch_size=1), 3)
    with pytest.raises(ValueError, match=r"ZeRO-2 .* was not timed on this machine"):
        times.step_s(TrainingRecipe(method="zero2", library="ours", num_ranks=2))
    only = MachineTimes(CONFIG, {way_of(RECIPES[0]): dict.fromkeys(SHAPES, (1.0, 0.5))})
    assert only.step_s(RECIPES[0]) == pytest.approx(1.5)


def test_the_way_from_ranks_to_one_process():
    yafsdp = way_of(RECIPES[-1])
    assert list(simpler_ways(yafsdp).values()) == [way_of(RECIPES[3]), way_of(RECIPES[2])]
    assert simpler_ways(way_of(RECIPES[0])) == {}


def test_a_line_through_two_points():
    assert along((1, 3), 2, (10.0, 20.0)) == 15.0
    assert along((1, 3), 5, (10.0, 20.0)) == 30.0


def test_medians_leave_a_slow_moment_out():
    steps = [StepSeconds(total, 0.1) for total in (1.0, 1.1, 9.0, 1.2, 1.1)]
    assert small_seconds([RankReport([steps], [None], 6)], 0) == pytest.approx((1.0, 0.1))


def test_real_small_steps_give_every_rung_a_time():
    found = calibrate(RECIPES, SMALL, num_rounds=3, budget_s=0.0)
    assert {len(small) for small in found.small.values()} == {len(SHAPES)}
    assert all(min(pair) > 0 for small in found.small.values() for pair in small.values())
    assert set(found.small) == {way_of(recipe) for recipe in RECIPES}
