"""What lab 10's checks compare with is true: messages, bills, choices, logs, interruptions."""

import math
from dataclasses import replace

import pytest

from tests.runs_10 import end_of, start_of, true_events, write
from utils.checks import truth_10_explain as explain
from utils.checks import truth_10_save as save
from utils.checks.truth_10_choose import CASES, Way, allowed, best
from utils.checks.truth_10_choose_mistakes import MISTAKES as CHOICES
from utils.checks.truth_10_cloud import (
    FULL,
    KEYS,
    Cloud,
    peak_bytes,
    right,
    sent_bytes,
    step_seconds,
    usd_of,
)
from utils.checks.truth_10_explain_mistakes import MISTAKES as EXPLANATIONS
from utils.checks.truth_10_predict_mistakes import CASES as PREDICTIONS
from utils.checks.truth_10_predict_mistakes import MISTAKES
from utils.checks.truth_10_run import CLOUD, JOB, RECIPES, bill_of, recipe_of, repeat
from utils.config import GPTConfig
from utils.peers.harness import train_system
from utils.ranks import run_ranks
from utils.recipe import TrainingRecipe
from utils.trainer.log import read_log
from utils.trainer.systems import job_of, system_of

TINY = GPTConfig(num_layers=3, num_heads=2, model_dim=32, context_length=32)
SENDERS = [("ddp", "torch"), ("zero2", "ours"), ("zero3", "ours"), ("fsdp", "ours")]
BROADCAST_BYTES = 172  # of DDP's buckets, once


@pytest.mark.parametrize("method, library", SENDERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_messages_are_those_of_real_ranks(method, library, precision):
    recipe = TrainingRecipe(
        precision, "fused", "blocks", method, library, batch_size=1, micro_batches=2, num_ranks=2
    )
    job = job_of(recipe, TINY, num_steps=2, max_norm=1.0)
    runs = run_ranks(train_system, 2, system_of(recipe), job, quiet=True)
    for run in runs:
        extra = run.sent_bytes - sent_bytes(recipe, TINY)
        assert 0 <= extra <= BROADCAST_BYTES + 2 * FULL


def test_a_bill_on_one_device_is_flops_over_its_rate():
    cloud = Cloud("one", 10**9, 1e9, 2e9, 1.0, 3.6, 1)
    recipe, job, _ = PREDICTIONS[0]
    run = right(recipe, job, cloud)
    assert list(run) == list(KEYS)
    assert run["usd"] == pytest.approx(run["flops"] / 1e9 * 3.6 / 3600)
    again = right(replace(recipe, checkpointing="blocks"), job, cloud)
    assert again["flops"] == run["flops"] and again["recomputed_flops"] < run["flops"] / 3
    assert again["usd"] > run["usd"] and again["peak_bytes"] < run["peak_bytes"]


@pytest.mark.parametrize("key", KEYS)
def test_each_wrong_prediction_shows_in_some_case(key):
    truths = [right(*case)[key] for case in PREDICTIONS]
    for text, mistaken in MISTAKES[key]:
        off = [abs(mistaken(*case) - truth) > 2e-3 * truth
               for case, truth in zip(PREDICTIONS, truths, strict=True)]  # fmt: skip
        assert any(off), text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_choice_is_the_cheapest_of_all_that_is_allowed(case):
    usd = [usd_of(each, case.job, case.cloud) for each in case.recipes if not allowed(each, case)]
    choice = best(case)
    assert (choice is None) == (not usd)
    if choice:
        assert not allowed(choice, case) and usd_of(choice, case.job, case.cloud) == min(usd)


def test_choices_differ_in_everything_that_a_recipe_decides():
    choices = [best(case) for case in CASES if best(case)]
    for name in ("precision", "checkpointing", "method", "num_ranks", "micro_batches"):
        assert len({getattr(each, name) for each in choices}) > 1, name
    assert [best(case) for case in CASES].count(None) == 1


@pytest.mark.parametrize("text, way", CHOICES)
def test_each_wrong_way_to_choose_is_found_in_some_case(text, way):
    assert any(not Way().explains(way.choose(case), case) for case in CASES)


def test_the_job_needs_both_devices_and_leaves_a_choice():
    fit = [each for each in RECIPES if peak_bytes(each, JOB) <= CLOUD.memory_bytes]
    able = [each for each in fit if usd_of(each, JOB, CLOUD) <= JOB.budget_usd]
    assert {each.num_ranks for each in fit} == {2}
    assert len(able) >= 3 and {each.method for each in able} >= {"zero2", "fsdp"}
    assert len(fit) > len(able)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab_10") / "run"
    write(folder, true_events())
    return read_log(folder)


def test_one_process_finds_the_losses_of_two_ranks(log):
    truth = repeat(log)
    assert truth.losses == pytest.approx(log.losses, abs=1e-4)
    assert truth.validation_loss == pytest.approx(end_of(true_events())["validation_loss"],
                                                  abs=1e-4)  # fmt: skip


def test_the_logs_bill_is_the_formulas(log):
    bill, said = bill_of(log, CLOUD), start_of(true_events())["prediction"]
    assert bill["usd"] == pytest.approx(usd_of(recipe_of(log), JOB, CLOUD), rel=1e-4)
    assert bill == pytest.approx(said, rel=0.02)
    computing, sending = step_seconds(recipe_of(log), JOB, CLOUD)
    assert computing > 0 and sending > 0


@pytest.mark.parametrize("case", explain.CASES, ids=lambda case: case.name)
def test_the_factors_multiply_to_the_dollars_of_the_logs(case):
    def usd(attempts):
        logs, spent = explain.logs_of(attempts), 0.0
        for each in logs:
            since = each.start["resumed_from"] or 0
            spent += each.steps[-1]["usd"] - (each.steps[since - 1]["usd"] if since else 0)
        return spent

    assert case.whole == pytest.approx(usd(case.paid) / usd(case.planned))
    assert math.prod(case.right.values()) == pytest.approx(case.whole)


def test_made_logs_have_the_steps_of_a_resumed_run():
    for attempts in (case.paid for case in explain.CASES):
        for log, attempt in zip(explain.logs_of(attempts), attempts, strict=True):
            assert [each["step"] for each in log.steps] == list(range(1, attempt.last + 1))
            for name in ("seconds", "usd", "tokens"):
                values = [each[name] for each in log.steps]
                assert values == sorted(values)
        assert log.is_finished


@pytest.mark.parametrize("text, mistake", EXPLANATIONS)
def test_each_wrong_explanation_shows_in_some_case(text, mistake):
    assert any(mistake(case) != pytest.approx(case.right) for case in explain.CASES)


@pytest.mark.parametrize("spot", save.CASES, ids=lambda spot: spot.name)
def test_the_best_interval_has_no_cheaper_neighbour(spot):
    best_s = save.best_interval_s(spot)
    lowest = save.overhead(spot, best_s)
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert save.overhead(spot, factor * best_s) > lowest
    assert best_s < save.young_s(spot)


@pytest.mark.parametrize("spot", save.CASES, ids=lambda spot: spot.name)
def test_the_formula_is_what_drawn_interruptions_cost(spot):
    for useful_s in (save.best_interval_s(spot), spot.mean_s / 2):
        drawn = save.simulated_overhead(spot, useful_s, num_saves=20_000)
        expected = save.overhead(spot, useful_s)
        assert drawn - 1 == pytest.approx(expected - 1, rel=0.1)


@pytest.mark.parametrize("text, mistake", save.MISTAKES)
def test_each_wrong_interval_shows_in_some_case(text, mistake):
    for spot in save.CASES:
        if mistake(spot) != pytest.approx(save.right(spot), rel=1e-4):
            return
    pytest.fail(f"{text}: no case shows it")
