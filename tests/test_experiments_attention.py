"""The attention experiment, small: both ways compute the same, and what they hold."""

from dataclasses import replace

import pytest
import torch

from utils.config import GPTConfig
from utils.experiments import attention, software
from utils.experiments.attention import attention_pair, attention_sweep, step_peak_bytes
from utils.measured import MARK
from utils.model import next_token_loss
from utils.recorded import RecordedRun
from utils.recorded_rows import rows_problem

TINY = GPTConfig(1, 2, 16, 16, 256)


def run_of(name, rows):
    return RecordedRun("CPU Y", "cpu", "Linux", "2.13.0", "2026-11-24", "abc", {name: rows})


def test_both_attentions_compute_the_same_and_fused_holds_less():
    pair = attention_pair(replace(attention.CPU_CONFIG, num_layers=1), 256, 256)
    tokens_BT = pair["fused"].tokens_BT
    losses = [next_token_loss(step.model, tokens_BT, tokens_BT).item() for step in pair.values()]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    explicit, fused = (step_peak_bytes(step) for step in pair.values())
    assert explicit > 1.5 * fused
    assert step_peak_bytes(pair["fused"]) == fused  # a second step, gradients there


def test_the_explicit_matrix_grows_with_the_length_and_nothing_else_does():
    peaks = {length: [step_peak_bytes(step) for step in attention_pair(TINY, length, 64).values()]
             for length in (16, 32, 64)}  # fmt: skip
    fused = [peak[1] for peak in peaks.values()]
    assert max(fused) < 1.1 * min(fused)
    growth = [peaks[length][0] - peaks[length // 2][0] for length in (32, 64)]
    assert 0 < growth[0] < growth[1]


def test_attention_rows_are_whole_also_without_memory(monkeypatch):
    monkeypatch.setattr(attention, "CPU_CONFIG", TINY)
    monkeypatch.setattr(attention, "CPU_LENGTHS", (8, 16))
    monkeypatch.setattr(attention, "CPU_TOKENS", 16)
    rows = attention_sweep("cpu", repeats=3)
    assert rows_problem("attention", rows) == ""
    assert [(row["context_length"], row["attention"]) for row in rows] == [
        (8, "explicit"), (8, "fused"), (16, "explicit"), (16, "fused"),
    ]  # fmt: skip
    real = attention.peak_bytes

    def short(step, model, device):
        if model.config.attention == "explicit":
            raise torch.OutOfMemoryError("none left")
        return real(step, model, device)

    monkeypatch.setattr(attention, "peak_bytes", short)
    rows = attention_sweep("cpu", repeats=3)
    assert rows_problem("attention", rows) == ""
    assert [row["peak_bytes"] is None for row in rows] == [True, False, True, False]
    assert [row["seconds"] is None for row in rows] == [True, False, True, False]


def test_the_lessons_table_has_exact_bytes_and_marked_times():
    rows = software.attention_rows((32,))
    assert len(rows) == 1 and len(rows[0]) == len(software.ATTENTION_HEADERS)
    assert rows[0][0] == "32" and "MiB" in rows[0][1] and MARK in rows[0][4]
    assert [row[:4] for row in software.attention_rows((32,))] == [row[:4] for row in rows]
