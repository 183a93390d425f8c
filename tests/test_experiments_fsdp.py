"""The experiments of lesson 08: bills by formula, steps in turn, a simulated Llama."""

from functools import partial

import pytest

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.experiments.fsdp_bill import fsdp_bill
from utils.experiments.llama_steps import FAST, SLOW, ddp_step, fsdp_step, gather_per_forward
from utils.experiments.side_by_side import side_by_side
from utils.peers import TrainingJob
from utils.peers.ours import fsdp_system, zero_system

CONFIG = GPTConfig(2, 2, 16, 16, 32)
JOB = TrainingJob(CONFIG, batch_size=4)


def share_of_blocks():
    count = count_parameters(CONFIG)
    return CONFIG.num_layers * count.block / count.total


@pytest.mark.parametrize("frees", [True, False])
def test_the_bill_is_the_formulas(frees):
    bill = fsdp_bill(2, JOB, reshard_after_forward=frees)
    assert bill.sent["all_gather"] == pytest.approx((1 + share_of_blocks() * frees) / 2)
    assert bill.sent["send"] == pytest.approx(1 / 2)
    assert 8 <= bill.held_per_parameter < 8.01  # Adam's counters on top
    assert bill.peak_mb == bill.peak_bytes / 1e6


def test_micro_batches_gather_again():
    once = fsdp_bill(2, JOB)
    twice = fsdp_bill(2, TrainingJob(CONFIG, batch_size=4, num_micro_batches=2), no_sync=True)
    assert twice.sent["all_gather"] == pytest.approx(2 * once.sent["all_gather"])
    assert twice.sent["send"] == pytest.approx(once.sent["send"])


def test_one_more_layer_ahead_is_one_more_layer_of_weights():
    deep = TrainingJob(GPTConfig(5, 4, 128, 32), batch_size=4)  # weights decide the peak
    peaks = [fsdp_bill(2, deep, prefetch=prefetch).peak_bytes for prefetch in (0, 1, 2)]
    block_bytes = 4 * count_parameters(deep.config).block
    assert peaks[1] - peaks[0] == peaks[2] - peaks[1] == block_bytes


def test_systems_take_turns_for_as_many_rounds_as_asked():
    systems = {"fsdp": fsdp_system(), "zero": partial(zero_system(3))}
    timed = side_by_side(systems, 2, JOB, num_rounds=3)
    assert list(timed.timings) == ["fsdp", "zero"]
    assert all(len(timing.runs_s) == 3 for timing in timed.timings.values())
    assert timed.ratio("fsdp", "fsdp") == 1.0


@pytest.mark.parametrize(("systems", "rounds"), [({}, 5), ({"fsdp": fsdp_system()}, 2)])
def test_nothing_to_compare_is_refused(systems, rounds):
    with pytest.raises(ValueError, match="at least one system and 3 rounds"):
        side_by_side(systems, 2, JOB, rounds)


def test_prefetch_hides_what_a_layer_computes_long_enough_for():
    naive, ahead = fsdp_step(4096, 0), fsdp_step(4096, 1)
    assert naive.exposed_s > 10 * ahead.exposed_s
    assert naive.total_s == pytest.approx(ahead.total_s - ahead.exposed_s + naive.exposed_s)


def test_fewer_tokens_or_a_slower_network_raise_the_ratio():
    ratios = [gather_per_forward(fsdp_step(tokens, 1)) for tokens in (512, 1024, 2048)]
    assert ratios == sorted(ratios, reverse=True)
    assert gather_per_forward(fsdp_step(512, 1, SLOW)) > ratios[0]


def test_on_a_slow_network_three_models_cost_more_than_two():
    assert 1.3 < fsdp_step(512, 1, SLOW).total_s / ddp_step(512, SLOW).total_s < 1.5
    assert fsdp_step(4096, 1, FAST).total_s == pytest.approx(ddp_step(4096).total_s, rel=0.02)
