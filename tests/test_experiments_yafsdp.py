"""The experiments of lesson 09: whole units made and freed, turns in buffers, sums of 16 bits."""

import numpy as np
import pytest
import torch

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.experiments.buffer_turns import LAYERS, five_layers
from utils.experiments.churn import (
    LAYERS_HEADERS,
    PHASES,
    churn,
    layers_row,
    rounds,
    seconds_and_faults,
    step_churn,
)
from utils.experiments.sixteen_bits import WAYS, scatter_errors, scatter_rows
from utils.peers import TrainingJob
from utils.peers.harness import measure_system
from utils.peers.our_yafsdp import yafsdp_system
from utils.peers.ours import fsdp_system
from utils.ranks import run_ranks
from utils.simulate import COMPUTE, overwrites, simulate
from utils.techniques.buffered_shard import BufferedShard

JOB = TrainingJob(GPTConfig(3, 2, 32, 16, 32), batch_size=2)
COUNT = count_parameters(JOB.config)


@pytest.fixture(scope="module")
def naive():
    return churn(fsdp_system(), JOB)


@pytest.fixture(scope="module")
def better():
    return churn(yafsdp_system(), JOB)


def test_fsdp_makes_two_gathers_a_block_one_of_the_root_and_every_gradient(naive):
    assert naive.num_whole == 3 * 3 + 2
    gathered = COUNT.total + 3 * COUNT.block
    assert naive.whole_allocated_bytes == 4 * (gathered + COUNT.total)
    assert naive.whole[-1] == 0 and naive.num_all > naive.num_whole


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"prefetch": 2}])
def test_looking_ahead_changes_when_and_not_how_much(naive, options):
    other = churn(fsdp_system(**options), JOB)
    assert other.whole_allocated_bytes == naive.whole_allocated_bytes
    assert not np.array_equal(other.whole, naive.whole)


def test_weights_kept_are_made_once():
    kept = churn(fsdp_system(reshard_after_forward=False), JOB)
    assert kept.num_whole == 2 * (3 + 1)
    assert kept.whole_allocated_bytes == 8 * COUNT.total


@pytest.mark.parametrize("options", [{}, {"num_buffers": 3}, {"reshard_after_forward": False}])
def test_yafsdp_makes_no_whole_unit_and_its_buffers_never_go(options):
    step = churn(yafsdp_system(**options), JOB)
    assert step.num_whole == step.whole_allocated_bytes == 0
    assert step.whole.min() == step.whole.max() > 0


def _step_with_new_buffers(rank, world_size):
    plain = BufferedShard.take_gradients

    def take_gradients(shard):
        shard.gradients.flat = torch.zeros_like(shard.gradients.flat)
        plain(shard)

    BufferedShard.take_gradients = take_gradients  # in this rank's process only
    return step_churn(rank, world_size, yafsdp_system(), JOB)


def test_buffers_that_are_made_anew_are_seen():
    assert run_ranks(_step_with_new_buffers, 2)[0].num_whole >= 3


@pytest.mark.parametrize("system", [fsdp_system(), yafsdp_system()], ids=["FSDP", "YaFSDP"])
def test_bytes_held_are_those_of_the_harness(system):
    step = churn(system, JOB)
    sizes = run_ranks(measure_system, 2, system, JOB)[0]
    assert step.held_bytes == sizes.held_bytes
    assert len(step.places) == len(step.whole) == len(step.total)
    assert step.places[0] == 0 and step.places[-1] < len(PHASES)
    assert (np.diff(step.places) > 0).all()


def test_the_row_of_a_number_of_layers(naive):
    row = dict(zip(LAYERS_HEADERS, layers_row(2), strict=True))
    assert row["layers"] == 2
    assert (row["whole units made, FSDP"], row["whole units made, YaFSDP"]) == (8, 0)
    # Two buffers for two layers: nothing is sharded beside Adam, and nothing gathered twice.
    assert row["held, YaFSDP"] == pytest.approx(16, rel=1e-3)
    assert row["sent, YaFSDP"] == pytest.approx(1.0, rel=1e-3)
    assert row["held, FSDP"] == pytest.approx(8, rel=1e-3)


def test_seconds_and_faults_are_counted_for_every_round():
    systems = {"FSDP": fsdp_system(), "YaFSDP": yafsdp_system()}
    found = run_ranks(rounds, 2, systems, TrainingJob(JOB.config, 2, num_steps=4))[0]
    assert {name: len(each) for name, each in found.items()} == {"FSDP": 3, "YaFSDP": 3}
    assert all(seconds > 0 and faults >= 0 for each in found.values() for seconds, faults in each)
    times, faults = seconds_and_faults(systems, JOB, num_rounds=3)
    assert set(faults) == set(times.timings) == set(systems)
    assert all(len(each.runs_s) == 3 for each in times.timings.values())


def test_five_layers_take_turns_without_a_hazard():
    tasks, accesses = five_layers()
    timeline = simulate(tasks)
    assert overwrites(timeline, accesses) == []
    assert {access.buffer for access in accesses} == {
        f"{kind} {place}" for kind in ("weights", "gradients") for place in (0, 1)
    }
    assert timeline.busy_s(COMPUTE) == pytest.approx(5 * 6e-3)
    again = [task.name for task in tasks if task.name.startswith("gather backward")]
    assert len(again) == len(LAYERS) - 2


@pytest.mark.filterwarnings("ignore:8 ranks on")
def test_messages_of_16_bits_send_half_and_sums_in_fp32_round_once():
    for num_ranks in (2, 8):
        for found in run_ranks(scatter_errors, num_ranks, quiet=True):
            exact, ring, wide = (found[name] for name in WAYS)
            assert exact == (pytest.approx((num_ranks - 1) / num_ranks), 0.0)
            assert ring[0] == wide[0] == pytest.approx(exact[0] / 2)
            assert 2**-10 < wide[1] < 2**-9 < ring[1]  # bf16 rounds by up to 2**-9


def test_rows_of_sums_have_two_cells_for_each_number_of_ranks():
    rows = scatter_rows((2,))
    assert [row[0] for row in rows] == list(WAYS)
    assert all(len(row) == 3 and row[2].endswith("%") for row in rows)
