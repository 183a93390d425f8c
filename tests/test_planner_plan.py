"""Plans: what is ranked, and what is refused and why."""

import json
from dataclasses import replace

import pytest

from utils.config import PRESETS
from utils.hardware import find_chip, load_chips
from utils.planner import PlanRequest, plan
from utils.planning.advice import fewest_gpus
from utils.planning.hour_price import hour_price
from utils.planning.options import planned_recipes, precisions, usable_bytes
from utils.planning.published_rows import load_published
from utils.planning.recipe_bytes import recipe_bytes
from utils.prices import price_spread

SMALL = PlanRequest("gpt2-124m", 10e9, "H100 SXM", 8)
LARGE = PlanRequest("llama2-70b-shape", 2e12, "A100 80GB", 512, sequences_per_step=1024)


@pytest.fixture(scope="module")
def small():
    return plan(SMALL)


@pytest.fixture(scope="module")
def large():
    return plan(LARGE)


def test_feasible_recipes_are_ranked_by_dollars_and_all_keep_the_batch(small):
    usd = [each.usd for each in small.feasible]
    assert usd == sorted(usd)
    assert {each.recipe.sequences_per_step for each in small.feasible} == {512}
    assert {each.recipe.method for each in small.feasible} == {
        "ddp", "zero1", "zero2", "zero3", "fsdp", "yafsdp"
    }  # fmt: skip
    assert not small.refused


def test_dollars_days_and_energy_are_arithmetic(small):
    best = small.best
    assert best.num_steps == -(-10e9 // (512 * 1024))
    hours = best.num_steps * best.step.total_s / 3600 * 8
    assert best.gpu_hours == pytest.approx(hours)
    assert best.usd == pytest.approx(hours * price_spread("H100 SXM", "on-demand").median)
    assert best.kwh == pytest.approx(hours * 0.7 * 1.2)  # 700 W and a PUE of 1.2
    assert best.days == pytest.approx(hours / 8 / 24)
    assert best.tokens_per_s == pytest.approx(512 * 1024 / best.step.total_s)
    assert sum(best.step_s.values()) == pytest.approx(best.step.total_s)


def test_bytes_are_those_of_the_recipe_and_fit(small):
    for each in small.feasible:
        peak = recipe_bytes(each.recipe, PRESETS["gpt2-124m"], 0, "nccl").peak
        assert each.peak == peak
        assert peak.total <= usable_bytes(SMALL)


def test_the_micro_batch_is_the_largest_that_fits(large):
    request = replace(LARGE, sequences_per_step=512 * 8)
    for each in planned_recipes(request, hour_price(request)):
        share = each.recipe.batch_size * each.recipe.micro_batches
        assert share == 8
        larger = each.recipe.batch_size * 2
        if not each.problem and larger <= share:
            bigger = replace(each.recipe, batch_size=larger, micro_batches=share // larger)
            peak = recipe_bytes(bigger, request.config, 0, "nccl").peak
            assert peak.total > usable_bytes(request)


def test_what_does_not_fit_says_by_how_much(large):
    assert {each.recipe.checkpointing for each in large.feasible} == {"blocks"}
    room = usable_bytes(LARGE)
    assert room == pytest.approx(80e9 * 0.93)
    for each in large.refused:
        needed, over = each.peak.total / 1e9, (each.peak.total - room) / 1e9
        assert each.is_too_large and each.over_bytes == pytest.approx(1e9 * over)
        assert each.problem == (
            f"needs {needed:,.1f} GB, {over:,.1f} more than the 74.4 of 80 GB that are usable on "
            "A100 80GB"
        )


def test_deadline_and_budget_are_refused_with_the_excess(large):
    days, usd = large.best.days, large.best.usd
    late = plan(replace(LARGE, deadline_days=30.0))
    assert late.best is None
    best = next(each for each in late.refused if each.recipe == large.best.recipe)
    assert not best.is_too_large
    assert best.problem == (
        f"takes {days:,.0f} days, {days - 30:.3g} days over the deadline of 30 days"
    )
    assert late.verdict.startswith("Nothing meets deadline and budget; the nearest is bf16")
    poor = plan(replace(LARGE, budget_usd=1e6))
    best = next(each for each in poor.refused if each.recipe == large.best.recipe)
    assert best.problem == f"costs ${usd:,.0f}, ${usd - 1e6:,.0f} over the budget of $1,000,000"
    enough = plan(replace(LARGE, budget_usd=usd + 1, deadline_days=days + 1))
    assert enough.best.recipe == large.best.recipe


def test_a_model_that_fits_nowhere_names_the_smallest_number():
    tight = replace(LARGE, num_gpus=8, sequences_per_step=None)
    found = plan(tight)
    fewest = fewest_gpus(tight)
    assert found.verdict.endswith(f"the smallest number on which it does is {fewest}.")
    assert not found.feasible
    enough = plan(replace(tight, num_gpus=fewest, sequences_per_step=fewest))
    assert enough.feasible
    fewer = fewest - tight.gpus_per_node
    assert not plan(replace(tight, num_gpus=fewer, sequences_per_step=fewer)).feasible


def test_a_model_too_long_for_any_number_says_so():
    endless = replace(PRESETS["llama2-70b-shape"], context_length=400_000)
    request = PlanRequest(endless, 1e9, "RTX 4090", 8)
    assert fewest_gpus(request) is None
    assert "fits on no number of RTX 4090 by these recipes" in plan(request).verdict


def test_precisions_are_those_the_chip_multiplies():
    assert precisions(find_chip("H100 SXM")) == ("bf16", "fp32")
    assert precisions(find_chip("V100 32GB")) == ("fp16", "fp32")
    old = plan(PlanRequest("gpt2-124m", 1e9, "V100 32GB", 8, usd_per_gpu_hour=0.5))
    kinds = {(each.recipe.precision, each.recipe.method) for each in old.feasible}
    assert ("fp16", "ddp") in kinds
    assert ("fp16", "fsdp") not in kinds
    assert not [each for each in old.feasible if each.recipe.precision == "bf16"]


def test_the_largest_published_llama_can_be_planned():
    request = PlanRequest("Llama 3.1 405B", 15.6e12, "H100 SXM", 2048, sequences_per_step=2048)
    (published,) = (row for row in load_published() if row.run == "Llama-3.1-405B")
    assert request.config == published.config
    best = plan(request).best
    assert best.recipe.checkpointing == "blocks"
    assert 0.5 < best.gpu_hours / published.gpu_hours < 1


def test_recipes_that_cannot_be_told_apart_tie():
    found = plan(PlanRequest("gpt2-124m", 10e9, "A100 80GB", 8))
    methods = [each.recipe.method for each in (found.best, *found.ties)]
    assert sorted(methods) == ["fsdp", "yafsdp", "zero1", "zero2", "zero3"]
    assert found.ties == found.feasible[1:5]
    assert all(each.usd <= 1.02 * found.best.usd for each in found.ties)
    words = "ties with 4 others (within 2%) as the cheapest of 24 recipes that work: $37.22"
    assert found.verdict.startswith(f"{found.best.recipe.name} {words}")
    ddp = plan(PlanRequest("gpt2-124m", 10e9, "A100 80GB", 8, methods=("ddp",)))
    assert not ddp.ties and "DDP is the cheapest of 4 recipes" in ddp.verdict
    late = plan(PlanRequest("Llama 2 70B", 2e12, "A100 80GB", 512, deadline_days=120))
    assert ", tied with 2 others (within 2%), which takes 125 days" in late.verdict


def test_one_gpu_has_one_process_only():
    alone = plan(PlanRequest("gpt2-124m", 1e9, "H100 SXM", 1))
    assert {each.recipe.method for each in alone.feasible} == {"single"}
    assert alone.best.step_s["exposed messages"] == 0


def test_tokens_cost_in_proportion():
    one, ten = (plan(replace(SMALL, tokens=tokens)).best.usd for tokens in (1e10, 1e11))
    assert ten / one == pytest.approx(10, rel=1e-3)


def test_every_gpu_with_a_price_can_be_planned():
    planned = {}
    for chip in load_chips():
        try:
            request = PlanRequest("gpt2-124m", 1e9, chip.name, 8)
            planned[chip.name] = plan(request).best
        except ValueError as error:
            assert str(error).startswith((
                "There is no on-demand price", "The table has no", f"{chip.name} is made to serve",
                f"{chip.name} needs other software",
            )), chip.name  # fmt: skip
    assert len(planned) > 6
    assert all(best.usd > 0 for best in planned.values())


def test_a_prediction_goes_into_a_runs_log(small):
    prediction = json.loads(json.dumps(small.best.prediction()))
    assert prediction["peak_bytes"] == small.best.peak.total
    assert prediction["tokens_per_s"] == pytest.approx(512 * 1024 / prediction["step_s"])
    assert prediction["usd"] == small.best.usd


def test_the_default_batch_is_half_a_million_tokens():
    for gpus, sequences in ((1, 512), (8, 512), (64, 512), (1024, 1024)):
        assert PlanRequest("gpt2-124m", 1e9, "H100 SXM", gpus).step_sequences == sequences
