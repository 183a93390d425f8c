"""What `make record` adds on top of the lessons: whole steps, MFU, steps on ranks, collectives."""

import pytest
import torch

from utils.config import GPTConfig
from utils.costs import count_parameters, training_flops
from utils.experiments import (
    algorithms,
    attention,
    capstone,
    compiling,
    rank_steps,
    whole_step,
)
from utils.experiments.capstone import Peak, capstone_sweep, peak_of
from utils.experiments.rank_steps import backend_of, collective_sweep, rank_sweep
from utils.experiments.registry import EXPERIMENTS, NotHere
from utils.experiments.whole_step import whole_step_sweep
from utils.recorded_rows import rows_problem

TINY = GPTConfig(2, 2, 16, 16, 256)
BYTES = 4 * count_parameters(TINY).total


def test_a_whole_step_by_format_and_library(monkeypatch):
    monkeypatch.setattr(whole_step, "CPU_JOB", (TINY, 2))
    rows = whole_step_sweep("cpu", repeats=3)
    assert rows_problem("whole_step", rows) == ""
    assert [(row["precision"], row["library"]) for row in rows] == [
        ("fp32", "torch"), ("bf16", "torch"), ("bf16", "ours"),
    ]  # fmt: skip
    peaks = [row["peak_bytes"] for row in rows]
    assert all(peak > 4 * BYTES for peak in peaks)  # weights, gradients, two moments
    assert peaks[2] == pytest.approx(peaks[1], rel=0.05)
    for row in rows:
        assert row["tokens_per_s"] == pytest.approx(2 * 16 / row["seconds"])


def test_mfu_follows_from_seconds_and_peak(monkeypatch):
    monkeypatch.setattr(capstone, "CPU_CONFIG", TINY)
    monkeypatch.setattr(capstone, "CPU_BATCHES", (1, 2))
    monkeypatch.setattr(capstone, "peak_of", lambda *_: Peak(1e12, "a test"))
    rows = capstone_sweep("cpu", repeats=3)
    assert rows_problem("capstone", rows) == ""
    assert [row["batch_size"] for row in rows] == [1, 2]
    for row in rows:
        flops = training_flops(TINY, row["batch_size"], 16)
        assert row["mfu"] == pytest.approx(flops / row["seconds"] / 1e12)
        assert not row["is_compiled"] and row["peak_source"] == "a test"


def test_batches_end_where_memory_does(monkeypatch):
    monkeypatch.setattr(capstone, "CPU_CONFIG", TINY)
    monkeypatch.setattr(capstone, "CPU_BATCHES", (1, 2, 4))
    monkeypatch.setattr(capstone, "peak_of", lambda *_: Peak(1e12, "a test"))
    real = capstone.CapstoneStep.__call__

    def short(step):
        if len(step.tokens_BT) > 1:
            raise torch.OutOfMemoryError("none left")
        real(step)

    monkeypatch.setattr(capstone.CapstoneStep, "__call__", short)
    assert [row["batch_size"] for row in capstone_sweep("cpu", repeats=3)] == [1]


def test_the_peak_of_a_gpu_is_the_tables_and_names_its_row(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert peak_of("cuda", "bf16") == Peak(989e12, "chips.csv, H200")
    monkeypatch.setattr(capstone, "matmul_flops_per_s", lambda *_: 7e12)
    for name in ("NVIDIA Unheard 1", "Tesla T4"):  # the table has no bf16 rate for a T4
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert peak_of("cuda", "bf16") == Peak(7e12, "best 8192 x 8192 product measured here")
    assert peak_of("cpu", "fp32").source == "best 1024 x 1024 product measured here"


def test_a_kernel_that_does_not_compile_costs_only_its_row(monkeypatch):
    def broken(function, **_):
        def raises(*_):
            raise RuntimeError("no compiler")

        return raises

    monkeypatch.setattr(torch, "compile", broken)
    assert capstone.compiled_rows(TINY, 1, "cpu", "fp32", Peak(1e12, "a test"), 3) == []
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda *a: function(*a))
    (row,) = capstone.compiled_rows(TINY, 1, "cpu", "fp32", Peak(1e12, "a test"), 3)
    assert row["is_compiled"] and rows_problem("capstone", [row]) == ""


def test_every_method_trains_on_two_ranks_and_is_weighed(monkeypatch):
    monkeypatch.setattr(rank_steps, "CPU_CONFIG", TINY)
    monkeypatch.setattr(rank_steps, "NUM_STEPS", 2)
    rows = rank_sweep("cpu", num_rounds=1)
    assert rows_problem("ranks", rows) == ""
    found = {(row["method"], row["library"]): row for row in rows}
    assert list(found) == list(rank_steps.CPU_METHODS)
    held = {key: row["held_bytes"] / BYTES for key, row in found.items()}
    assert held["ddp", "torch"] == held["ddp", "ours"] == pytest.approx(4, rel=0.01)
    assert held["zero1", "ours"] == pytest.approx(3, rel=0.02)
    assert held["zero2", "ours"] == pytest.approx(2.5, rel=0.02)
    assert held["zero3", "ours"] == pytest.approx(2, rel=0.02)
    sent = {key: row["sent_bytes"] / BYTES for key, row in found.items()}
    assert sent["ddp", "torch"] == pytest.approx(1, rel=0.05)  # 2 (N - 1) / N with N = 2
    assert sent["zero3", "ours"] == pytest.approx(1.5, rel=0.05)


def test_collectives_grow_with_their_bytes(monkeypatch):
    monkeypatch.setattr(rank_steps, "CPU_SIZES", (64, 4096))
    rows = collective_sweep("cpu", num_runs=1)
    assert rows_problem("collectives", rows) == ""
    assert [(row["bytes"], row["backend"]) for row in rows] == [(64, "gloo"), (4096, "gloo")]


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_fewer_than_two_gpus_is_said(monkeypatch, num_gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    for sweep in (rank_sweep, collective_sweep):
        with pytest.raises(NotHere, match=f"needs two GPUs, and this machine has {num_gpus}"):
            sweep("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert backend_of("cuda") == "nccl" and backend_of("cpu") == "gloo"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_experiment_gives_whole_rows(monkeypatch):
    small = GPTConfig(2, 2, 128, 128, 256)
    monkeypatch.setattr(whole_step, "GPU_JOB", (small, 2))
    monkeypatch.setattr(capstone, "GPU_CONFIG", small)
    monkeypatch.setattr(capstone, "GPU_BATCHES", (1, 2))
    monkeypatch.setattr(attention, "GPU_CONFIG", small)
    monkeypatch.setattr(attention, "GPU_LENGTHS", (64, 128))
    monkeypatch.setattr(attention, "GPU_TOKENS", 256)
    monkeypatch.setattr(compiling, "GPU_JOBS", {"small": (small, 2)})
    track = algorithms.Track(small, batch_size=4, num_steps=20, num_seeds=2)
    monkeypatch.setattr(algorithms, "GPU_TRACK", track)
    for name in ("whole_step", "capstone", "attention", "compile", "algorithms"):
        assert rows_problem(name, EXPERIMENTS[name].load()("cuda")) == "", name
