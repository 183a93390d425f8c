"""Targets: met and not met by the recorded figures, no verdict elsewhere, nothing invented."""

import json
from dataclasses import replace

import pytest

from utils.experiments.targets import (
    H200_CLASS,
    TARGETS,
    bf16_findings,
    checkpointing_findings,
    is_h200_class,
    mfu_findings,
    print_targets,
    target_lines,
)
from utils.hardware import find_chip
from utils.recorded import RecordedRun, write_recorded
from utils.recorded_rows import rows_problem


def steps(fp32_s, bf16_s):
    return [
        {"precision": name, "seconds": seconds, "flops_per_s": 1e12, "peak_bytes": None}
        for name, seconds in (("fp32", fp32_s), ("tf32", 0.2), ("bf16", bf16_s))
    ]


def plans(full_bytes, full_s, attention="fused", held=1000):
    values = (("none", 2000, 1.0), ("full", full_bytes, full_s), ("optimal", None, None))
    rows = [
        {"attention": attention, "plan": plan, "num_tokens": 8, "peak_bytes": peak, "flops": None,
         "seconds": seconds, "largest_batch": None, "largest_batch_seconds": None}
        for plan, peak, seconds in values
    ]  # fmt: skip
    return [row | ({"held_bytes": held} if held else {}) for row in rows]


def batches(*mfus):
    return [
        {"precision": "bf16", "is_compiled": number > 0, "batch_size": 8 * (number + 1),
         "seconds": 1.0, "tokens_per_s": 1.0, "mfu": mfu, "peak_flops_per_s": 989e12,
         "peak_source": "chips.csv, H200"}
        for number, mfu in enumerate(mfus)
    ]  # fmt: skip


GOOD = {
    "step_precision": steps(1.5, 0.25), "checkpointing": plans(1300, 1.25),
    "capstone": batches(0.41, 0.5),
}  # fmt: skip
H200 = RecordedRun("NVIDIA H200", "cuda", "575", "2.13.0", "2026-11-24", "abc", GOOD)
CPU = replace(H200, device="CPU Y, one core", kind="cpu")


def test_rows_are_such_as_make_record_writes():
    for name, rows in GOOD.items():
        assert rows_problem(name, rows) == ""
    assert {each.experiment for each in TARGETS} == set(GOOD)


def test_targets_that_are_met_say_so_with_the_measurement(tmp_path):
    write_recorded(H200, tmp_path)
    label = "[NVIDIA H200, torch 2.13.0, 2026-11-24]"
    lines = target_lines(tmp_path)
    assert lines[1] == f"  met: 6 times as fast (1,500.0 ms to 250.0 ms) {label}"
    assert lines[4] == f"  met: fused attention: full 70% for +25% time {label}"
    assert lines[7] == (
        f"  met: 50.0% with 16 sequences in bf16, compiled; peak: chips.csv, H200 {label}"
    )
    assert "not recorded yet" not in "\n".join(lines)


@pytest.mark.parametrize(
    "name, rows, words",
    [
        ("step_precision", steps(1.49, 0.25), "not met: 5.96 times as fast"),
        ("checkpointing", plans(1301, 1.25), "not met: fused attention: full 70% for +25% time"),
        ("checkpointing", plans(1100, 1.26), "not met: fused attention: full 90% for +26% time"),
        ("capstone", batches(0.41, 0.4999), "not met: 50.0% with 16"),
    ],
)
def test_a_figure_just_below_is_not_met(tmp_path, name, rows, words):
    write_recorded(replace(H200, experiments={**GOOD, name: rows}), tmp_path)
    found = [line for line in target_lines(tmp_path) if line.startswith("  not met")]
    assert len(found) == 1 and words in found[0]


def test_without_a_gpu_of_the_class_nothing_is_judged(tmp_path):
    assert sum("not recorded yet: no GPU" in line for line in target_lines(tmp_path)) == 3
    write_recorded(CPU, tmp_path)
    write_recorded(replace(H200, device="Tesla T4"), tmp_path)
    lines = target_lines(tmp_path)
    assert sum("not recorded yet: no GPU" in line for line in lines) == 3
    judged = [line for line in lines if line.startswith("  ") and "recorded" not in line]
    assert len(judged) == 6 and all(line.startswith("  no verdict: ") for line in judged)


def test_the_judged_device_comes_first(tmp_path):
    for run in (CPU, H200):
        write_recorded(run, tmp_path)
    lines = target_lines(tmp_path)
    assert lines[1].startswith("  met") and lines[2].startswith("  no verdict")


def test_rows_without_an_answer_are_said(tmp_path):
    rows = {"checkpointing": plans(1300, 1.2, held=None), "capstone": batches(None)}
    rows["step_precision"] = steps(1.5, 0.25)[:1]
    write_recorded(replace(H200, experiments=rows), tmp_path)
    lines = target_lines(tmp_path)
    assert sum(line.startswith("  no figure: ") for line in lines) == 3
    assert sum("not recorded yet: no GPU" in line for line in lines) == 3


def test_findings_of_odd_rows_do_not_break():
    assert list(bf16_findings([])) == list(mfu_findings([])) == []
    assert list(checkpointing_findings(plans(None, None))) == []
    assert list(checkpointing_findings(plans(1300, 1.2)[1:])) == []
    both = plans(1300, 1.2) + plans(1600, 1.1, "explicit")
    assert [each.is_met for each in checkpointing_findings(both)] == [True, False]


def test_the_class_is_known_by_the_drivers_names():
    for name, expected in (
        ("NVIDIA H200", True), ("NVIDIA H100 80GB HBM3", True), ("NVIDIA B200", True),
        ("NVIDIA A100-SXM4-80GB", False), ("Tesla V100-SXM2-32GB", False), ("unknown", False),
    ):  # fmt: skip
        assert is_h200_class(replace(H200, device=name)) == expected
    assert not is_h200_class(replace(H200, kind="cpu"))
    for chip in H200_CLASS:
        assert find_chip(chip).peak_flops("bf16") > 5e14


def test_the_block_names_skipped_files_and_is_not_compared(tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "utils.experiments.targets.measured_text", lambda title, text: shown.append((title, text))
    )
    (tmp_path / "bad.json").write_text(json.dumps({"schema": 2}))
    print_targets(tmp_path)
    assert capsys.readouterr().out == ""
    ((title, text),) = shown
    assert "H200" in title and text.count("Skipped bad.json") == 1


def test_the_courses_own_files_are_read():
    assert sum("not recorded yet" in line or "met" in line for line in target_lines()) >= 3
