"""Timing logic on invented seconds (no test depends on the speed of a machine), and training."""

import pytest
import torch

from utils.config import GPTConfig
from utils.corpus import load_corpus
from utils.model import build_gpt
from utils.timing import Comparison, Timing, compare, matmul_flops_per_s, one_thread, time_step
from utils.train import TrainingConfig, sample_text, train, validation_loss

TINY = GPTConfig(2, 2, 32, 32, 256)


def made_up(**runs_s):
    return Comparison({name: Timing(tuple(values)) for name, values in runs_s.items()})


def test_ratios_are_taken_round_by_round():
    """A machine that slows down 10x in the middle changes no ratio."""
    comparison = made_up(new=[1, 10, 100], old=[2, 20, 200])
    assert comparison.ratio("new", "old") == 0.5
    assert comparison.verdict("new", "old") == "faster"
    assert comparison.verdict("old", "new") == "slower"


def test_seconds_per_unit_of_work_decide_between_unequal_variants():
    comparison = made_up(eight=[6, 6, 6], one=[1, 1, 1])
    assert comparison.verdict("eight", "one") == "slower"
    assert comparison.per({"eight": 8, "one": 1}).verdict("eight", "one") == "faster"


def test_quartiles_that_straddle_one_give_no_verdict():
    comparison = made_up(new=[0.8, 1.0, 1.3, 0.9, 1.2], old=[1, 1, 1, 1, 1])
    assert comparison.verdict("new", "old") == "too noisy to tell"
    assert "too noisy to tell" in comparison.sentence("new", "old")


def test_variants_run_in_turn_after_the_warm_up():
    calls = []
    result = compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 1)
    assert calls == ["a", "b"] * 4
    assert len(result.timings["a"].runs_s) == 3
    assert all(seconds >= 0 for seconds in result.timings["b"].runs_s)


def test_a_timing_knows_its_median_and_quartiles():
    timing = Timing((5.0, 1.0, 2.0, 3.0, 4.0))
    assert timing.median_s == 3.0
    assert timing.quartiles_s == (2.0, 4.0)


def test_timing_keeps_one_thread_and_restores_the_rest():
    before = torch.get_num_threads()
    seen = []
    time_step(lambda: seen.append(torch.get_num_threads()), repeats=3)
    assert set(seen) == {1}
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == before


def test_bad_requests_are_refused_in_words():
    with pytest.raises(ValueError, match="at least 3 repeats"):
        compare({"a": int}, repeats=2)
    with pytest.raises(ValueError, match="at least one variant"):
        compare({})


def test_a_matmul_rate_is_positive():
    assert matmul_flops_per_s(size=64, repeats=3) > 0


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(max_bytes=200_000)


def test_training_learns_and_repeats_itself(corpus):
    config = TrainingConfig(batch_size=4, context_length=32)
    runs = [train(build_gpt(TINY), corpus, config, steps=40) for _ in range(2)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].losses[-1] < runs[0].losses[0] - 1.0
    assert runs[0].num_tokens == 40 * 4 * 32


def test_a_budget_in_seconds_stops_and_reports(corpus):
    seen = []
    config = TrainingConfig(batch_size=1, context_length=8)
    run = train(
        build_gpt(TINY), corpus, config, seconds=0.2, report=lambda *row: seen.append(row)
    )
    assert run.seconds >= 0.2
    assert seen[-1][1] == 1.0 and len(seen) == len(run.losses)


def test_training_wants_exactly_one_budget(corpus):
    for budget in ({}, {"seconds": 1.0, "steps": 1}):
        with pytest.raises(ValueError, match="either seconds or steps"):
            train(build_gpt(TINY), corpus, TrainingConfig(), **budget)


def test_a_sample_continues_the_prompt(corpus):
    model = build_gpt(TINY)
    text = sample_text(model, "def ", 40)
    assert text.startswith("def ") and text == sample_text(model, "def ", 40)
    assert model.training
    with pytest.raises(ValueError, match="prompt is empty"):
        sample_text(model, "", 5)


def test_validation_reads_text_that_training_never_sees(corpus):
    config = TrainingConfig(batch_size=2, context_length=32)
    model = build_gpt(TINY)
    loss = validation_loss(model, corpus, config, num_batches=2)
    assert loss == pytest.approx(5.55, abs=0.1)  # ln 256: nothing learnt yet
    assert model.training
