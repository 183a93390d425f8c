"""The recorded experiment of lesson 05: its rows, on a CPU and with a memory that runs out."""

import gc
import json
from dataclasses import replace

import pytest
import torch

from utils.config import GPTConfig
from utils.costs import training_flops
from utils.experiments import checkpointing
from utils.experiments.checkpointing import (
    PLANS,
    Setting,
    block_plan,
    checkpointing_sweep,
    keep_linear,
    largest,
    plain_plan,
    step_by,
)
from utils.experiments.fitting import DoesNotFit
from utils.experiments.plan_runner import PlanRunner
from utils.memory import measure_memory
from utils.record import EXPERIMENTS
from utils.techniques.checkpointing import checkpoint_by_hooks
from utils.techniques.segments import layers_of, runs_of

CONFIG = GPTConfig(4, 8, 32, 32, 64, attention="explicit")
LIMIT = 1_600_000
KEYS = {"plan", "peak_bytes", "seconds", "flops", "largest_batch"}


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Each meter collects garbage first; torch's own objects need not be looked through again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def rows():
    before = checkpointing.CPU_SETTINGS
    checkpointing.CPU_SETTINGS = (Setting(CONFIG, 2, LIMIT),)
    try:
        return {row["plan"]: row for row in checkpointing_sweep("cpu", repeats=3)}
    finally:
        checkpointing.CPU_SETTINGS = before


@pytest.fixture(scope="module")
def runner():
    return PlanRunner(CONFIG, "cpu")


def test_every_plan_gives_one_full_row_that_json_can_hold(rows):
    assert list(rows) == list(PLANS)
    for row in rows.values():
        assert set(row) >= KEYS
        assert None not in row.values()
    assert json.loads(json.dumps(rows)) == rows


def test_bytes_and_flops_stand_in_the_order_that_the_plans_promise(rows):
    peaks = {name: row["peak_bytes"] for name, row in rows.items()}
    flops = {name: row["flops"] for name, row in rows.items()}
    assert peaks["full"] < peaks["every 2nd"] < peaks["none"]
    assert peaks["selective"] < peaks["none"]
    assert flops["none"] < flops["every 2nd"] < flops["full"]
    assert flops["none"] < flops["selective"] < flops["full"]
    assert flops["none"] == training_flops(CONFIG, 2, CONFIG.context_length)


def test_the_optimal_plan_keeps_to_half_of_what_the_plain_step_adds(rows, runner):
    added = {name: row["peak_bytes"] - runner.held_bytes for name, row in rows.items()}
    assert added["optimal"] <= added["none"] // 2
    assert rows["none"]["flops"] < rows["optimal"]["flops"]


@pytest.mark.parametrize("name", PLANS)
def test_the_largest_batch_fits_and_the_next_one_does_not(rows, runner, name):
    size = rows[name]["largest_batch"]
    assert size >= 1
    assert runner.peak_bytes(step_by(runner, name, size, LIMIT)) <= LIMIT
    try:
        larger = runner.peak_bytes(step_by(runner, name, size + 1, LIMIT))
    except DoesNotFit:
        return
    assert larger > LIMIT


def test_checkpointing_makes_room_for_more(rows):
    sizes = {name: row["largest_batch"] for name, row in rows.items()}
    assert sizes["none"] < sizes["selective"] < sizes["full"] <= sizes["optimal"]


def test_plans_name_each_half_once():
    for num_layers in (1, 2, 5):
        for plan in (plain_plan(num_layers), block_plan(num_layers), block_plan(num_layers, 2)):
            assert layers_of(plan) == list(range(2 * num_layers + 2))
    assert block_plan(3, 2) == (0, (1, 2), 3, 4, (5, 6), 7)
    assert set(runs_of(plain_plan(4)).values()) == {1}


def test_the_policy_keeps_linear_layers_only():
    aten = torch.ops.aten
    assert keep_linear(aten.mm.default) and keep_linear(aten.addmm.default)
    assert not any(map(keep_linear, (aten.bmm.default, aten.gelu.default, aten._softmax.default)))


def test_a_plan_for_a_target_is_never_over_it_and_none_is_refused(runner):
    plain = runner.peak_bytes(step_by(runner, "none", 2))
    for percent in (100, 80, 60, 45):
        target = runner.held_bytes + (plain - runner.held_bytes) * percent // 100
        plan = runner.best_plan(2, target)
        step = runner.step(plan, checkpoint_by_hooks, 2)
        assert measure_memory(step, runner.model).peak_bytes <= target
    with pytest.raises(DoesNotFit):
        runner.best_plan(2, runner.held_bytes + 1000)


def test_the_planner_asks_for_less_when_the_device_takes_more_than_the_costs_say(monkeypatch):
    runner = PlanRunner(CONFIG, "cpu")
    honest = runner.peak_bytes
    scratch = 20_000
    monkeypatch.setattr(runner, "peak_bytes", lambda step: honest(step) + scratch)
    target = runner.held_bytes + 700_000
    step = runner.step(runner.best_plan(2, target), checkpoint_by_hooks, 2)
    assert honest(step) + scratch <= target


def test_a_device_without_room_for_the_plain_step_still_gives_the_other_rows(monkeypatch):
    plain_step = PlanRunner.step

    def step(self, plan, checkpoint, batch_size):
        run = plain_step(self, plan, checkpoint, batch_size)
        if plan != plain_plan(CONFIG.num_layers):
            return run

        def runs_out():
            run()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        return runs_out

    monkeypatch.setattr(PlanRunner, "step", step)
    monkeypatch.setattr(checkpointing, "CPU_SETTINGS", (Setting(CONFIG, 2, LIMIT // 2),))
    rows = {row["plan"]: row for row in checkpointing_sweep("cpu", repeats=3)}
    plain = rows.pop("none")
    assert plain["peak_bytes"] is plain["seconds"] is plain["flops"] is None
    assert plain["largest_batch"] == 0
    assert rows["full"]["seconds"] > 0 and rows["full"]["largest_batch"] >= 1


def test_a_limit_below_the_weights_lets_no_batch_in(runner):
    found = largest(runner, "full", runner.held_bytes // 2, first=2)
    assert found == {"largest_batch": 0, "largest_batch_seconds": None}


def test_the_largest_batch_can_be_left_out(monkeypatch):
    setting = replace(Setting(CONFIG, 1, LIMIT), finds_largest=False)
    monkeypatch.setattr(checkpointing, "CPU_SETTINGS", (setting,))
    for row in checkpointing_sweep("cpu", repeats=3):
        assert row["largest_batch"] is None and row["peak_bytes"] > 0 and row["seconds"] > 0


def test_make_record_runs_it():
    assert EXPERIMENTS["checkpointing"].load() is checkpointing_sweep


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_allocator_decides(monkeypatch):
    small = Setting(GPTConfig(4, 8, 256, 256, 512), 4, 2**29)
    monkeypatch.setattr(checkpointing, "GPU_SETTINGS", (small,))
    rows = {row["plan"]: row for row in checkpointing_sweep("cuda", repeats=3)}
    assert rows["full"]["peak_bytes"] < rows["none"]["peak_bytes"]
    assert rows["none"]["largest_batch"] < rows["full"]["largest_batch"]
