"""Advice: single changes that planning again confirms, and none that saves nothing."""

from dataclasses import replace

import pytest

from utils.planner import PlanRequest, plan
from utils.planning.advice import cheapest, helpful_changes

LARGE = PlanRequest("llama2-70b-shape", 2e12, "A100 80GB", 512, sequences_per_step=1024)


@pytest.fixture(scope="module")
def large():
    return plan(LARGE)


def test_advice_is_what_planning_again_finds(large):
    changes = helpful_changes(LARGE, large.best)
    assert changes
    usd = [change.after.usd for change in changes]
    assert usd == sorted(usd)
    for change in changes:
        again = cheapest(change.request)
        assert (again.recipe, again.usd) == (change.after.recipe, change.after.usd)
        assert again.usd < large.best.usd
    assert f"${large.best.usd:,.0f} -> ${usd[0]:,.0f}" in changes[0].sentence()
    assert not any("bought" in change.words for change in changes)


def test_advice_lifts_what_the_request_forbids():
    strict = replace(LARGE, checkpointing="off", methods=("fsdp",))
    found = plan(strict)
    assert found.best is None
    words = {change.words: change for change in found.changes}
    assert words["checkpointing allowed"].after.recipe.checkpointing == "blocks"
    assert words["checkpointing allowed"].sentence().startswith(
        "checkpointing allowed: nothing feasible -> $"
    )
    assert found.advice is found.changes[0]


def test_no_advice_that_saves_nothing():
    cheap = PlanRequest("gpt2-124m", 1e9, "H100 SXM", 1, usd_per_gpu_hour=1e-6)
    found = plan(cheap)
    for change in found.changes:
        assert change.after.usd < 0.999 * found.best.usd


def test_twice_the_gpus_make_a_deadline_that_one_half_misses(large):
    tight = replace(LARGE, deadline_days=0.75 * large.best.days)
    words = {change.words for change in plan(tight).changes}
    assert "1024 GPUs" in words
    assert "256 GPUs" not in words
    assert f"a deadline of {2 * tight.deadline_days:g} days" in words


def test_cheap_cards_on_a_slow_network_are_no_advice(large):
    """An RTX 4090 costs an eighth an hour; gathering 70 billion weights by Ethernet eats that."""
    chips = {change.request.chip for change in helpful_changes(LARGE, large.best)}
    assert "RTX 4090" not in chips
