"""The real DeepSpeed on ranks, against the one-process run, the formulas and the kernel's count.

Bytes per parameter on N ranks should be, by the formulas of ZeRO: in 16 bits 16, 4 + 12/N, 2 + 14/N
and 16/N, in fp32 16, 8 + 8/N, 4 + 12/N and 16/N. `HELD` says what DeepSpeed holds, and why.
"""

import dataclasses
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from utils.model import build_gpt
from utils.peers import TrainingJob, deepspeed_import
from utils.peers.deepspeed_import import deepspeed_problem, import_deepspeed
from utils.peers.deepspeed_zero import STAGES, deepspeed_stage
from utils.peers.harness import (
    batches,
    largest_gap,
    measure_system,
    one_process,
    parts_of,
    train_system,
)
from utils.ranks import TrafficLedger, run_ranks

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="DeepSpeed is set up on Linux only"
)
JOB = TrainingJob(num_steps=3)
NUM_PARAMETERS = sum(p.numel() for p in build_gpt(JOB.config, device="meta").parameters())
LARGEST = max(p.numel() for p in build_gpt(JOB.config, device="meta").parameters())
# Stages 1 and 2 free the gradients of other ranks' parts before backward returns, so that both hold
# what the paper has stage 2 hold. In fp32 stages 1 to 3 keep a second copy of their part (4/N).
HELD = {
    (False, 0): lambda n: 16,
    (False, 1): lambda n: 4 + 16 / n,
    (False, 2): lambda n: 4 + 16 / n,
    (False, 3): lambda n: 20 / n,
    (True, 0): lambda n: 16,
    (True, 1): lambda n: 2 + 14 / n,
    (True, 2): lambda n: 2 + 14 / n,
    (True, 3): lambda n: 16 / n,
}
# In units of (N - 1)/N of the model: an all-reduce is 2, an all-gather 1. gloo's reduce-scatter is
# an all-reduce, so it writes 4 in stage 3, where 3 would do.
WRITTEN = {0: 2, 1: 3, 2: 3, 3: 4}
TEXTBOOK = {0: 2, 1: 3, 2: 3, 3: 3}


@cache
def trained(stage, world_size, zero_options=(), **changes):
    job = dataclasses.replace(JOB, **changes)
    return run_ranks(train_system, world_size, deepspeed_stage(stage, **dict(zero_options)), job)


@cache
def oracle(num_parts=1, **changes):
    return one_process(dataclasses.replace(JOB, **changes), num_parts)


def is_share(num_bytes, share, value_bytes=4):
    """A share of the model, and a few values more: norms, an overflow flag."""
    extra_bytes = num_bytes - share * value_bytes * NUM_PARAMETERS
    return -1e-6 <= extra_bytes <= 64


@pytest.mark.parametrize(
    ("world_size", "stage"), [*((2, stage) for stage in STAGES), (4, 2), (4, 3)]
)
def test_it_trains_as_one_process_does(world_size, stage, capfd):
    runs = trained(stage, world_size)
    for run in runs:
        loss_gap, parameter_gap = largest_gap(run, oracle())
        assert loss_gap < 1e-5 and parameter_gap < 1e-4
        share = (world_size - 1) / world_size
        assert is_share(run.sent_bytes, WRITTEN[stage] * share)
        assert is_share(run.textbook_bytes, TEXTBOOK[stage] * share)
    assert capfd.readouterr() == ("", "")  # neither log lines nor warnings


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_sends_half_and_stays_near(stage):
    for run in trained(stage, 2, low_precision=True):
        loss_gap, parameter_gap = largest_gap(run, oracle())
        assert loss_gap < 5e-3 and 0 < parameter_gap < 2e-2
        assert is_share(run.sent_bytes, WRITTEN[stage] / 2, value_bytes=2)
        assert all(each.dtype == torch.float32 for each in run.parameters)


@pytest.mark.parametrize("stage", [1, 3])
def test_clipping_is_by_the_norm_of_all_ranks(stage):
    (run, _) = trained(stage, 2, max_norm=0.1, learning_rate=1e-2)
    clipped = largest_gap(run, oracle(max_norm=0.1, learning_rate=1e-2))[1]
    # Adam divides by a gradient's size, so what rounding makes of one near zero moves its weight.
    assert clipped < 1e-3
    assert largest_gap(run, oracle(learning_rate=1e-2))[1] > 10 * clipped


@pytest.mark.parametrize(("stage", "written"), [(0, 2), (1, 3), (2, 2 * 2 + 1), (3, 2 * 4)])
def test_micro_batches_add_up_and_later_stages_send_in_each(stage, written):
    for run in trained(stage, 2, num_micro_batches=2):
        loss_gap, parameter_gap = largest_gap(run, oracle())
        assert loss_gap < 1e-5 and parameter_gap < 1e-4
        assert is_share(run.sent_bytes, written / 2)


def test_options_replace_settings():
    reduces = trained(2, 2, (("use_multi_rank_bucket_allreduce", False),))[0]
    assert "reduce" in reduces.calls and is_share(reduces.textbook_bytes, 2 / 2)
    keeps = (("stage3_max_live_parameters", 10**9), ("stage3_max_reuse_distance", 10**9))
    kept = trained(3, 2, keeps)[0]
    assert is_share(kept.sent_bytes, 3 / 2)  # the weights are gathered once, not twice


@pytest.mark.parametrize(("low_precision", "stage"), HELD)
def test_a_rank_holds_what_its_stage_says(low_precision, stage):
    job = dataclasses.replace(JOB, low_precision=low_precision)
    value_bytes = 2 if low_precision else 4
    for size in run_ranks(measure_system, 2, deepspeed_stage(stage), job):
        expected_bytes = HELD[low_precision, stage](2) * NUM_PARAMETERS
        extra_bytes = size.held_bytes - expected_bytes
        # Stage 0: a step count for each parameter. Stages 1 and 2: the gradient of a parameter that
        # both ranks share is whole on both. Stage 3: a bucket as large as the largest parameter.
        room = {0: 4 * 100, 1: value_bytes * LARGEST, 2: value_bytes * LARGEST}
        if stage == 3:
            assert 0 <= extra_bytes - value_bytes * LARGEST <= 64
        else:
            assert 0 <= extra_bytes <= room[stage]


def two_steps(rank, world_size, stage):
    """What the formulas and the kernel say of the second step, and what was imported."""
    before = {"deepspeed": "deepspeed" in sys.modules, "compile": torch.compile}
    system = deepspeed_stage(stage)(build_gpt(JOB.config), rank, world_size, JOB)
    for batch in list(batches(JOB))[:2]:
        ((tokens_BT, targets_BT),) = parts_of(batch, rank, world_size, 1)
        with TrafficLedger() as ledger:
            system.backward(tokens_BT, targets_BT, is_last=True)
            system.step()
    counted_bytes = ledger.bytes_sent + ledger.envelope_bytes
    compiles = any(name.startswith("torch._inductor.compile") for name in sys.modules)
    unharmed = before["compile"] is torch.compile and not compiles
    return counted_bytes, ledger.kernel_bytes_sent(), before["deepspeed"] and unharmed


@pytest.mark.parametrize("stage", [2, 3])
def test_the_kernel_counts_the_same_and_nothing_is_compiled(stage, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")  # no compiler
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    for counted_bytes, kernel_bytes, as_preloaded in run_ranks(two_steps, 2, stage):
        assert counted_bytes == kernel_bytes > NUM_PARAMETERS
        assert as_preloaded
    assert not list(tmp_path.iterdir())


def test_tied_weights_and_uneven_sizes_are_the_library_s_business():
    config = dataclasses.replace(
        JOB.config, model_dim=60, vocab_size=251, tied_embeddings=True, num_layers=2
    )
    changes = {"config": config, "batch_size": 6}
    (run, *_) = trained(3, 3, **changes)
    loss_gap, parameter_gap = largest_gap(run, oracle(**changes))
    assert loss_gap < 1e-5 and parameter_gap < 1e-4


def test_it_refuses_in_one_sentence(monkeypatch):
    assert deepspeed_problem() is None
    assert "on Linux only, and this is darwin: what follows" in deepspeed_problem("darwin")
    with pytest.raises(ValueError, match="The stage must be 0, 1, 2 or 3, not 4"):
        deepspeed_stage(4)
    monkeypatch.setattr(deepspeed_import, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"^DeepSpeed is not installed \(`make venv` installs"):
        import_deepspeed()


def test_ranks_start_without_it():
    hidden = "import sys; sys.modules['deepspeed'] = None; import utils.ranks.preload"
    root = Path(deepspeed_import.__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    answer = subprocess.run(
        [sys.executable, "-c", hidden], env=environment, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
