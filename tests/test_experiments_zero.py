"""The experiments of lesson 07 against the meter and the ledger; no test depends on a time."""

from dataclasses import replace

import numpy as np
import pytest

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.experiments import zero_batch, zero_exact
from utils.experiments.zero_batch import (
    FIT_HEADERS,
    MODEL,
    batches_that_fit,
    bytes_per_sequence,
    fit_rows,
    peaks,
    rates_of,
)
from utils.experiments.zero_timeline import PHASES, steps_of_all_stages
from utils.peers import TrainingJob

ODD = GPTConfig(2, 3, 15, 7, 11)
MEMORY_BYTES = 16e6


@pytest.fixture(scope="module")
def fit():
    return batches_that_fit(MEMORY_BYTES, 2)


@pytest.fixture(scope="module")
def steps():
    return steps_of_all_stages(2, TrainingJob(GPTConfig(3, 2, 32, 8, 16), batch_size=4))


def test_more_fits_with_each_stage_and_with_more_ranks(fit):
    assert fit[0] < fit[1] < fit[2] < fit[3]
    with_64 = batches_that_fit(MEMORY_BYTES, 64)
    assert with_64[0] == fit[0] and all(with_64[stage] > fit[stage] for stage in (1, 2, 3))
    assert batches_that_fit(14e6, 2)[0] == 0  # the lesson says so


def test_the_meter_agrees_that_it_fits(fit):
    assert all(peak <= MEMORY_BYTES for peak in peaks(fit).values())


def test_a_sequence_costs_at_the_peak_what_the_formula_says():
    few, many = (peaks({3: batch})[3] for batch in (10, 20))
    assert (many - few) / 10 == pytest.approx(bytes_per_sequence(MODEL), rel=0.1)


def test_without_accumulation_stage_1_needs_no_more_at_its_peak_than_stage_2(fit):
    assert peaks({1: fit[2]})[1] == pytest.approx(peaks({2: fit[2]})[2], rel=0.01)


def test_rows_show_what_fits_and_what_does_not(fit, monkeypatch):
    monkeypatch.setattr(zero_batch, "peaks", lambda *_: {0: 15.9e6, 1: 16.1e6, 2: 1e6, 3: 1e6})
    rows = fit_rows(MEMORY_BYTES, 2)
    assert [row[0] for row in rows] == ["data parallel", "stage 1", "stage 2", "stage 3"]
    assert [row[3] for row in rows] == ["True", "False", "True", "True"]
    assert all(len(row) == len(FIT_HEADERS) for row in rows)
    assert rows[0][1:3] == (fit[0], "15.9")


def test_rates_are_positive_and_go_to_the_right_names(monkeypatch):
    rates, curve = rates_of({0: 1, 3: 2}, alone=(1, 2))
    assert set(rates) == {0, 3} and set(curve) == {1, 2}
    assert all(rate > 0 for rate in (*rates.values(), *curve.values()))
    monkeypatch.setattr(zero_batch, "sequences_per_second", lambda entries: [*range(len(entries))])
    assert rates_of({0: 1, 3: 2}, alone=(4, 8)) == ({0: 0, 3: 1}, {4: 2, 8: 3})


def test_the_slowest_rank_and_the_median_round_count(monkeypatch):
    by_rank = [[[1.0, 2.0], [1.0, 2.0], [9.0, 2.0]], [[2.0, 1.0], [1.0, 4.0], [1.0, 8.0]]]
    monkeypatch.setattr(zero_batch, "run_ranks", lambda *_: by_rank)
    assert zero_batch.sequences_per_second([(1, 3), (2, 8)]) == [2 * 3 / 2.0, 2 * 8 / 4.0]


@pytest.mark.parametrize(("stage", "num_ranks"), [(1, 2), (2, 3), (3, 4)])
def test_an_odd_model_is_counted_to_the_byte(stage, num_ranks):
    name, held, sent, agree = zero_exact.exact_row(stage, num_ranks, ODD)
    assert (name, agree) == (f"stage {stage} on {num_ranks}", "True")
    assert held > 0 < sent


def test_a_wrong_formula_is_found(monkeypatch):
    right = zero_exact.held_bytes
    monkeypatch.setattr(zero_exact, "held_bytes", lambda *rest: right(*rest) + 1)
    assert zero_exact.exact_row(2, 2, ODD)[-1] == "False"


def test_padding_is_part_of_an_odd_models_bill():
    per_parameter = zero_exact.expected_bytes(3, 4, ODD)[0] / count_parameters(ODD).total
    assert 4 < per_parameter < 4.1


@pytest.mark.parametrize(("stage", "sent"), [(1, 1.0), (2, 1.5), (3, 3.0)])
def test_micro_batches_cost_what_the_formula_says(stage, sent):
    name, once, several, by_ledger = zero_exact.accumulation_row(stage, 2, micro_batches=2)
    assert (name, several, by_ledger) == (f"stage {stage}", sent, sent)
    assert once == (1.5 if stage == 3 else 1.0)


def test_a_step_has_three_phases_that_grow_from_0_to_3(steps):
    for step in steps.values():
        assert step.places[0] == 0 and 2.9 < step.places[-1] < len(PHASES)
        assert np.all(np.diff(step.places) > 0)
        assert len(step.places) == len(step.weights) == len(step.gradients)


def in_phase(step, values, number):
    """Bytes per parameter in one phase of the step."""
    return values[(step.places >= number) & (step.places < number + 1)] / step.num_parameters


def test_stages_1_and_2_keep_whole_weights_and_stage_3_shards_between_its_layers(steps):
    for name in ("stage 1", "stage 2"):
        assert set(steps[name].weights / steps[name].num_parameters) == {4.0}
    step = steps["stage 3"]
    for number in (0, 1):
        during = in_phase(step, step.weights, number)
        assert during.min() < 2.7 and 2.3 < during.max() < 4  # never all of them
    assert in_phase(step, step.weights, 2)[-1] == 2.0


def test_stage_1_collects_all_gradients_and_stage_2_never_does(steps):
    one, two = steps["stage 1"], steps["stage 2"]
    assert in_phase(one, one.gradients, 1).max() == 4.0
    assert in_phase(two, two.gradients, 1).max() < 3.5
    for step in (one, two):
        update = in_phase(step, step.gradients, 2)
        assert update[len(update) // 2 :].max() <= 2.5 and update[-1] == 0
        assert in_phase(step, step.gradients, 0).max() == 0


def test_the_job_of_a_picture_can_be_any(steps):
    job = TrainingJob(replace(ODD, num_layers=1), batch_size=4)
    assert steps_of_all_stages(2, job)["stage 1"].num_parameters < steps["stage 1"].num_parameters
