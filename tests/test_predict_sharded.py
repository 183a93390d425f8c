"""Formulas of sharded training by hand, and against the meter on real ranks."""

from dataclasses import replace
from functools import partial

import pytest

from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters
from utils.peers import TrainingJob
from utils.peers.ddp import OurDdpSystem
from utils.peers.fsdp2 import Fsdp2System
from utils.peers.harness import measure_system
from utils.peers.ours import fsdp_system, zero_system
from utils.predict import TOKEN_BYTES
from utils.predict_sharded import (
    STAGES,
    ShardedBytes,
    predict_sharded,
    smallest_number_of_gpus,
)
from utils.ranks import run_ranks

BIG = PRESETS["llama2-7b-shape"]
CONFIG = GPTConfig(3, 2, 62, 32, 50)  # no unit divides by 4
JOB = TrainingJob(CONFIG, batch_size=8, num_steps=2)


def per_parameter(config, stage, num_ranks, precision):
    held = predict_sharded(config, stage, num_ranks, 1, precision).held
    return held.total / count_parameters(config).total


@pytest.mark.parametrize("num_ranks", [1, 8, 64, 1024])
@pytest.mark.parametrize("stage, fp32, bf16", [
    ("DDP", (16, 0), (16, 0)),
    ("ZeRO-1", (8, 8), (4, 12)),
    ("ZeRO-2", (4, 12), (2, 14)),
    ("ZeRO-3", (0, 16), (0, 16)),
    ("FSDP", (0, 16), (0, 16)),
])  # fmt: skip
def test_bytes_per_parameter_are_the_papers(stage, fp32, bf16, num_ranks):
    for precision, (whole, shared) in (("fp32", fp32), ("bf16", bf16)):
        expected = whole + shared / num_ranks
        assert per_parameter(BIG, stage, num_ranks, precision) == pytest.approx(expected, rel=1e-4)


def test_zeros_fill_each_unit_to_a_multiple():
    values = 3 * count_parameters(CONFIG).block, count_parameters(CONFIG).total
    units = [values[0] // 3] * 3 + [values[1] - values[0]]
    padded = sum(-(-size // 4) for size in units)
    held = predict_sharded(CONFIG, "FSDP", 4, 1).held
    assert (held.parameters, held.gradients) == (4 * padded, 4 * padded)
    assert held.optimizer_state == 8 * padded + 4 * 4
    assert 4 * padded > values[1]


def make_systems():
    zero = {f"ZeRO-{stage}": zero_system(stage) for stage in (1, 2, 3)}
    return {"DDP": OurDdpSystem, **zero, "FSDP": fsdp_system()}


def measure_all(rank, world_size, jobs):
    return {
        (stage, low): measure_system(rank, world_size, make_system, job)
        for low, job in jobs.items()
        for stage, make_system in make_systems().items()
    }


@pytest.fixture(scope="module", params=[2, 4])
def measured(request):
    """World size, and every stage's bytes on rank 0."""
    jobs = {low: replace(JOB, low_precision=low) for low in (False, True)}
    return request.param, run_ranks(measure_all, request.param, jobs, quiet=True)[0]


def prediction(stage, low, world_size, config=CONFIG):
    low_name = "bf16, fp32 shards" if stage == "FSDP" else "bf16"
    return predict_sharded(config, stage, world_size, 8 // world_size, low_name if low else "fp32")


def without_other_batches(peak_bytes, world_size, config=CONFIG):
    """The harness holds both steps' batches of all ranks; the formula counts this rank's one."""
    sequences = 2 * 8 - 8 // world_size
    return peak_bytes - sequences * 2 * config.context_length * TOKEN_BYTES


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_what_our_systems_hold_is_predicted_to_the_byte(measured, stage, low):
    world_size, found = measured
    held = prediction(stage, low, world_size).held.by_category()
    assert found[stage, low].held == {name: held[name] for name in found[stage, low].held}


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_peak_of_our_systems_is_predicted_within_a_few_percent(measured, stage, low):
    """The formula follows FSDP2, which holds a block's message until the next; ours drops it."""
    world_size, found = measured
    peak_bytes = without_other_batches(found[stage, low].peak_bytes, world_size)
    predicted = prediction(stage, low, world_size).peak.total
    assert predicted == pytest.approx(peak_bytes, rel=0.07 if stage == "FSDP" else 0.05)


def test_the_peak_of_fsdp2_is_predicted_within_one_percent():
    config = GPTConfig(4, 4, 64, 64, 256)
    job = TrainingJob(config, batch_size=8, num_steps=2)
    for world_size, low in ((2, False), (4, False), (4, True)):
        system = partial(measure_system, make_system=Fsdp2System)
        found = run_ranks(_keyword(system), world_size, replace(job, low_precision=low), quiet=True)
        peak_bytes = without_other_batches(found[0].peak_bytes, world_size, config)
        predicted = prediction("FSDP", low, world_size, config)
        assert predicted.peak.total == pytest.approx(peak_bytes, rel=0.01)


def _keyword(measure):
    return lambda rank, world_size, job: measure(rank, world_size, job=job)


def test_checkpointing_saves_activations_and_nothing_else():
    plain, again = (
        predict_sharded(BIG, "FSDP", 64, 1, "bf16", checkpointing) for checkpointing in (0, 1)
    )
    assert plain.held == again.held
    assert again.peak.activations < plain.peak.activations / 5


def test_the_peak_moment_has_a_name_and_the_categories_add_up():
    step = predict_sharded(CONFIG, "FSDP", 4, 2)
    assert step.moments[step.peak_moment] == step.peak
    assert step.peak.total == max(each.total for each in step.moments.values())
    assert sum(step.peak.by_category().values()) == step.peak.total
    assert list(ShardedBytes().by_category()) == [
        "parameters", "gradients", "optimizer state", "gathered", "activations",
    ]  # fmt: skip


def test_few_blocks_have_all_their_moments():
    for num_layers in (1, 2, 3):
        step = predict_sharded(replace(CONFIG, num_layers=num_layers), "FSDP", 4, 2)
        names = [name for name in step.moments if name.startswith("attention")]
        assert names == [f"attention {place}" for place in reversed(range(num_layers))]


def test_the_smallest_number_of_gpus_fits_and_one_less_does_not():
    memory_bytes = 24e9
    fewest = smallest_number_of_gpus(BIG, "FSDP", memory_bytes)

    def peak_bytes(num_ranks):
        return predict_sharded(BIG, "FSDP", num_ranks, 1, "bf16", True).peak.total

    assert peak_bytes(fewest) <= memory_bytes < peak_bytes(fewest - 1)
    assert smallest_number_of_gpus(BIG, "DDP", memory_bytes) is None
    assert smallest_number_of_gpus(CONFIG, "DDP", memory_bytes) == 1


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"stage": "ZeRO-4"}, "stage must be one of"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"num_ranks": 0}, "num_ranks must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"stage": "ZeRO-2", "precision": "bf16, fp32 shards"}, "ZeRO-2 keeps whole weights"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    good = {"config": CONFIG, "stage": "FSDP", "num_ranks": 4, "batch_size": 1}
    with pytest.raises(ValueError, match=words):
        predict_sharded(**{**good, **changes})
