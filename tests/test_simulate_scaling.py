"""Efficiency, GPU-hours and dollars by number of GPUs; the published scaling; batch sizes."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from utils.config import PRESETS
from utils.costs import count_parameters, gpu_hours, training_flops
from utils.hardware import find_chip
from utils.simulate import LINKS, Link, Setup, simulate_step, strong_scaling, weak_scaling
from utils.simulate.batch_size import (
    effective_batch,
    scaled_learning_rate,
    steps_factor,
    tokens_factor,
)
from utils.simulate.megatron import CONFIG, PUBLISHED_MFU, predict_published, published_step

GPT2 = PRESETS["gpt2-1.5b"]
RATE = find_chip("H100 SXM").peak_flops() * 0.5
SETUP = Setup(GPT2, RATE)
COUNTS = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]


def test_one_gpu_loses_nothing_and_takes_what_its_flops_take():
    point = simulate_step(SETUP, 1, 4)
    assert point.efficiency == 1.0 and point.timeline.exposed_s == 0.0
    assert point.step_s == pytest.approx(training_flops(GPT2, 4, 1024) / RATE)
    steps = 1e9 / point.tokens_per_step
    by_costs = gpu_hours(steps * training_flops(GPT2, 4, 1024), RATE, 1.0)
    assert point.gpu_hours_per_billion_tokens == pytest.approx(by_costs)
    assert point.usd_per_billion_tokens(3.0) == pytest.approx(3 * by_costs)


def test_links_without_cost_lose_nothing():
    free = Link(0.0, math.inf)
    for point in strong_scaling(replace(SETUP, inside=free, between=free), COUNTS, 4096):
        assert point.efficiency == 1.0


def test_efficiency_falls_with_gpus_and_dollars_rise_by_its_inverse():
    alone = simulate_step(SETUP, 1, 4)
    for points in (weak_scaling(SETUP, COUNTS, 4), strong_scaling(SETUP, COUNTS, 4096)):
        efficiencies = [point.efficiency for point in points]
        assert efficiencies == sorted(efficiencies, reverse=True)
        for point in points:
            ratio = point.usd_per_billion_tokens(4.0) / alone.usd_per_billion_tokens(4.0)
            assert ratio == pytest.approx(1 / point.efficiency)


def test_predicted_efficiencies_of_gpt2_on_h100s():
    """GPT-2 1.5B, half of the peak, fp32 gradients, NVLink 4 and 400 Gbit/s a GPU."""
    weak = [round(100 * point.efficiency, 1) for point in weak_scaling(SETUP, COUNTS, 8)]
    assert weak == [98.9, 98.2, 97.9, 97.7, 97.6, 97.5, 97.4, 97.4, 97.3, 97.3]
    strong = [round(100 * point.efficiency, 1) for point in strong_scaling(SETUP, COUNTS, 4096)]
    assert strong == [100.0, 99.9, 99.9, 99.7, 99.4, 98.7, 97.4, 77.5, 44.1, 23.3]


def test_strong_scaling_keeps_the_batch_and_speeds_up_less_than_the_gpus_grow():
    points = strong_scaling(SETUP, COUNTS, 4096)
    assert {point.tokens_per_step for point in points} == {4096 * 1024}
    for fewer, more in pairwise(points):
        assert 1 < more.tokens_per_s / fewer.tokens_per_s < 2 + 1e-9


def test_a_gpus_share_is_cut_into_the_largest_equal_micro_batches():
    (point,) = strong_scaling(SETUP, [8], 96)  # 12 sequences on each: two micro-batches of 6
    names = [span.task.name for span in point.timeline.on("compute")]
    assert names[0] == "forward and backward 0" and names[1] == "forward 1 embedding"
    assert len(names) == 1 + 2 * (GPT2.num_layers + 2)
    assert point.timeline.compute_s == pytest.approx(training_flops(GPT2, 12, 1024) / RATE)


def test_overlap_and_bandwidth_help():
    naive = simulate_step(replace(SETUP, overlaps=False), 64, 4)
    overlapped = simulate_step(SETUP, 64, 4)
    slow = simulate_step(replace(SETUP, between=LINKS["Ethernet 25 Gbit/s"]), 64, 4)
    assert slow.efficiency < naive.efficiency < overlapped.efficiency
    assert naive.timeline.exposed_s == pytest.approx(naive.timeline.busy_s("communication"))


def test_accumulation_hides_communication_behind_nothing_but_makes_it_rarer():
    whole = simulate_step(SETUP, 64, 16)
    in_four = simulate_step(SETUP, 64, 16, num_micro_batches=4)
    assert in_four.timeline.compute_s == pytest.approx(whole.timeline.compute_s)
    assert in_four.efficiency <= whole.efficiency
    assert in_four.efficiency > simulate_step(SETUP, 64, 4).efficiency


def test_a_replica_of_7_billion_does_not_fit_an_h100():
    setup = Setup(PRESETS["llama2-7b-shape"], RATE)
    assert setup.replica_bytes == 18 * count_parameters(setup.config).total
    assert setup.replica_bytes > find_chip("H100 SXM").memory_gb * 1e9 > SETUP.replica_bytes


def test_the_published_scaling_is_predicted_from_its_first_point():
    predictions = {p.num_gpus: p for p in predict_published()}
    assert [*predictions] == [*PUBLISHED_MFU]
    assert count_parameters(CONFIG).total == pytest.approx(177e9, rel=0.005)
    assert predictions[96].predicted_mfu == pytest.approx(0.47, abs=1e-6)  # calibrated
    shown = {n: round(100 * p.predicted_mfu, 1) for n, p in predictions.items()}
    assert (shown[2304], shown[4608]) == (44.6, 42.3)  # published: 43.8 and 42
    # What is left out can only cost time, so no point comes out too low.
    assert all(-1e-6 < p.error_points < 0.9 for p in predictions.values())


def test_the_published_network_at_80_percent_ends_too_low():
    link = LINKS["InfiniBand 400 Gbit/s"].at_share(0.8)
    last = predict_published(link=link)[-1]
    assert round(100 * last.predicted_mfu, 1) == 40.6
    assert round(last.error_points, 1) == -1.4


def test_batches_by_hand():
    assert steps_factor(1e6, 1e6) == tokens_factor(1e6, 1e6) == 2.0
    assert steps_factor(1e9, 1e6) == pytest.approx(1.0, abs=0.01)
    assert tokens_factor(1e3, 1e6) == pytest.approx(1.0, abs=0.01)
    for batch in (10.0, 1e3, 1e5):  # tokens = steps x batch, in units of the fewest of each
        assert tokens_factor(batch, 1e3) == pytest.approx(steps_factor(batch, 1e3) * batch / 1e3)
    assert effective_batch(8, 4, 2) == 64
    assert scaled_learning_rate(1e-3, 64, 16) == pytest.approx(4e-3)
    assert scaled_learning_rate(1e-3, 64, 16, "square root") == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: simulate_step(SETUP, 12, 4), "12 GPUs do not fill nodes of 8"),
        (lambda: simulate_step(SETUP, 8, 4, 3), "do not divide into 3 micro-batches"),
        (lambda: strong_scaling(SETUP, [8], 12), "does not divide among 8 GPUs"),
        (lambda: predict_published(100), "100 GPUs were not published"),
        (lambda: published_step(100, 0.5, LINKS["PCIe 4 x16"]), "not replicas of 48"),
        (lambda: steps_factor(0, 1), "batch_tokens is 0; it must be above 0"),
        (lambda: effective_batch(8, 0), "batch_per_gpu is 0"),
        (lambda: scaled_learning_rate(1e-3, 2, 1, "cubic"), "no rule 'cubic'"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
