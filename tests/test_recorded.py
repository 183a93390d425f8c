"""Recorded runs: written whole, read back, and a bad file is named and skipped."""

import json

import pytest
import torch

from utils.experiments import checkpointing, precision
from utils.record import code_version, device_name, record
from utils.recorded import FOLDER, RecordedRun, load_recorded, show_recorded, write_recorded

ROWS = [{"precision": "fp32", "seconds": 1.0}]
RUN = RecordedRun("Chip X 1", "cpu", "none", "2.13.0", "2026-11-23", "abc", {"matmul": ROWS})


def test_a_run_is_written_and_read_back(tmp_path):
    path = write_recorded(RUN, tmp_path)
    assert path.name == "chip-x-1.json"
    assert load_recorded("matmul", folder=tmp_path) == [RUN]
    assert load_recorded("other", folder=tmp_path) == []
    assert load_recorded("matmul", kind="cuda", folder=tmp_path) == []
    assert RUN.label == "Chip X 1, torch 2.13.0, 2026-11-23"
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "content, words",
    [
        ("{not json", "cannot be read"),
        ("[1, 2]", "not written by `make record`"),
        (json.dumps({"schema": 99}), "not written by `make record`"),
        (json.dumps({"schema": 1, "device": "x"}), "it lacks kind"),
        ("\udcff".encode("utf-8", "surrogateescape"), "cannot be read"),
    ],
)
def test_a_damaged_or_foreign_file_is_named_and_skipped(tmp_path, capsys, content, words):
    write_recorded(RUN, tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert load_recorded("matmul", folder=tmp_path) == [RUN]
    said = capsys.readouterr().out
    assert said.startswith("Skipped bad.json") and words in said


def test_a_missing_gpu_is_said_and_never_invented(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("utils.recorded.measured_text", lambda title, text: shown.append(text))
    show_recorded("Speed", ["device", "rate"], [["Chip X 1", 5]], kinds=["cpu"])
    assert shown[0].splitlines()[1] == "Chip X 1  5"
    assert "GPU: not recorded yet" in shown[0]
    show_recorded("Speed", ["device", "rate"], [], kinds=["cuda"])
    assert "not recorded" not in shown[1]


def test_recording_runs_every_experiment_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CPU_SIZES", (16, 32))
    monkeypatch.setattr(precision, "CPU_STEP", (precision.GPTConfig(1, 1, 16, 8, 32), 1))
    config = precision.GPTConfig(4, 8, 32, 32, 64, attention="explicit")
    tiny = checkpointing.Setting(config, 1, 2**20, finds_largest=False)
    monkeypatch.setattr(checkpointing, "CPU_SETTINGS", (tiny,))
    run = json.loads(record("cpu", tmp_path).read_text())
    rows = run["experiments"]["matmul_precision"]
    assert {(row["precision"], row["size"]) for row in rows} == {
        (name, size) for name in ("fp32", "bf16", "fp16") for size in (16, 32)
    }
    assert all(row["seconds"] > 0 for row in rows)
    steps = run["experiments"]["step_precision"]
    assert [row["precision"] for row in steps] == ["fp32", "bf16", "fp16"]
    plans = [row["plan"] for row in run["experiments"]["checkpointing"]]
    assert plans == ["none", "full", "every 2nd", "selective", "optimal"]
    assert run["torch"] == torch.__version__ and run["date"].count("-") == 2


def test_true_fp32_is_restored_after_tf32():
    before = torch.backends.cuda.matmul.allow_tf32
    with precision.tf32(True):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_the_cpu_names_its_16_bit_instructions():
    assert "bf16 instructions" in device_name("cpu")
    assert code_version()


def test_every_recorded_file_of_the_course_can_be_read(capsys):
    load_recorded("matmul_precision")
    assert "Skipped" not in capsys.readouterr().out
    assert FOLDER.is_dir()
