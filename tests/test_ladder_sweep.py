"""The recorded ladder: rows of a CPU, and what a GPU would run, without one."""

import json
from types import SimpleNamespace

import pytest
import torch

from utils.config import GPTConfig
from utils.experiments import ladder_sweep as sweep
from utils.experiments.ladder import RUNGS, RungResult
from utils.experiments.ladder_results import result_of
from utils.peers.harness import SystemBytes

SMALL = GPTConfig(num_layers=1, num_heads=2, model_dim=16, context_length=16)
GIB = 2**30


def test_a_cpu_records_a_row_for_each_rung():
    rows = sweep.ladder_sweep("cpu", config=SMALL, num_rounds=3, budget_s=0.0)
    assert [row["rung"] for row in rows] == [rung.name for rung in RUNGS]
    assert json.loads(json.dumps(rows)) == rows
    results = [result_of(row) for row in rows]
    assert [each.rung for each in results] == list(RUNGS)
    assert all(each.step_s > 0 and each.peak_bytes > each.held_bytes > 0 for each in results)


def test_the_bigger_batch_is_the_largest_that_fits():
    batches = [16, 32, 64, 128]
    assert sweep.largest_that_fits(batches, [1, 2, 4, 8], 4) == 64
    assert sweep.largest_that_fits(batches, [1, 2, 4, None], 99) == 64
    assert sweep.largest_that_fits(batches, [5, 9, None, None], 4) is None


def test_a_gpu_that_is_not_there_is_said_and_not_made_up():
    fp32, ddp, yafsdp = RUNGS[0], RUNGS[5], RUNGS[7]
    assert sweep.gpu_problem(fp32, 1) == ""
    assert sweep.gpu_problem(ddp, 1) == "not run: 2 ranks need a GPU each, and there is 1 GPU"
    assert sweep.gpu_problem(ddp, 2) == ""
    assert "computes on processors only" in sweep.gpu_problem(yafsdp, 8)


@pytest.fixture
def one_gpu(monkeypatch):
    """A GPU as the sweep sees it: 80 GiB, a peak of 1 GiB a sequence, and a climb that is noted."""
    climbed = []

    def weigh(rungs, config, backend):
        assert backend is None
        return [SystemBytes({}, rung.recipe.batch_size * GIB, 1) for rung in rungs]

    def climb(config, rungs, **options):
        climbed.append((config, rungs, options))
        return [RungResult(rung, tokens_per_step=1024, loss=4.0) for rung in rungs]

    monkeypatch.setattr(sweep, "weigh", weigh)
    monkeypatch.setattr(sweep, "climb", climb)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    memory = SimpleNamespace(total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    return climbed


def test_one_gpu_climbs_five_rungs_and_says_why_not_the_others(one_gpu):
    rows = sweep.ladder_sweep("cuda")
    ((config, rungs, options),) = one_gpu
    assert config == sweep.GPU_CONFIG and options["backend"] is None
    assert [rung.recipe.batch_size for rung in rungs] == [8, 8, 8, 8, 32]  # 72 less 7 x 2.5 GiB
    assert len(rows) == 8 and json.loads(json.dumps(rows)) == rows
    assert [bool(row["problem"]) for row in rows] == [False] * 5 + [True] * 3
    assert rows[6]["recipe"]["library"] == "torch" and rows[6]["loss"] is None
    assert rows[7]["problem"].startswith("not run: the course's YaFSDP")


def test_two_gpus_climb_all_but_the_last(one_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    rows = sweep.ladder_sweep("cuda", num_rounds=3)
    ((_, rungs, options),) = one_gpu
    assert [rung.name for rung in rungs] == [rung.name for rung in RUNGS[:7]]
    assert options["num_rounds"] == 3
    assert [bool(row["problem"]) for row in rows] == [False] * 7 + [True]


def test_no_bigger_batch_that_fits_leaves_the_batch(one_gpu, monkeypatch):
    monkeypatch.setattr(sweep, "weigh", lambda rungs, config, backend: [None] * len(rungs))
    rungs = sweep.gpu_rungs(SMALL, GIB)
    assert {rung.recipe.sequences_per_step for rung in rungs} == {sweep.GPU_BATCH}
