"""The command behind `make record`: bad requests, what it says, what it lists."""

import re

import pytest
import torch

from tests.record_runner import Runner
from utils import record as recording
from utils.experiments.registry import EXPERIMENTS
from utils.record import checked_names, main, record
from utils.record_apart import Outcome
from utils.record_where import code_version, device_name, driver_version

NAMES = list(EXPERIMENTS)


@pytest.fixture(autouse=True)
def no_git(monkeypatch):
    monkeypatch.setattr(recording, "code_version", lambda: "abc1234")


def test_bad_requests_are_one_sentence_before_anything_runs(tmp_path, capsys):
    run = Runner()
    for options, words in (
        ({"only": ["matmul"]}, "There is no experiment 'matmul'; take one of matmul_precision,"),
        ({"device": "tpu"}, "The device is 'tpu'; take cpu or cuda."),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            record(**{"device": "cpu", "folder": tmp_path, "run": run} | options)
    assert run.asked == [] and [*tmp_path.iterdir()] == []
    assert checked_names(["capstone", NAMES[0]]) == [NAMES[0], "capstone"]
    assert main(["--only", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("There is no experiment 'nothing'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="There is no CUDA device here"):
        record("cuda", tmp_path, run=Runner())


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path, capsys, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    run = Runner()
    monkeypatch.setattr(recording, "run_apart", run)
    assert main(["--device", "cpu", "--folder", str(blocked / "recorded")]) == 2
    assert capsys.readouterr().err.startswith("The file cannot be written (")
    assert run.asked == []


def test_the_command_says_what_failed_and_how_to_run_it_again(tmp_path, capsys, monkeypatch):
    failure = Outcome(1.0, problem="ran out of memory", is_failure=True)
    monkeypatch.setattr(recording.record, "__defaults__", (
        "", tmp_path, (), 480.0, Runner({NAMES[1]: failure}),
    ))  # fmt: skip
    assert main(["--device", "cpu", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"No new rows of {NAMES[1]}. Again: python -m utils.record --only {NAMES[1]}\n" in said
    interrupt = Runner({NAMES[0]: KeyboardInterrupt()})
    monkeypatch.setattr(recording.record, "__defaults__", ("", tmp_path, (), 480.0, interrupt))
    assert main(["--device", "cpu", "--folder", str(tmp_path)]) == 130
    assert "what was finished is kept" in capsys.readouterr().err


def test_the_list_names_every_experiment(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES


def test_the_machine_is_named():
    assert "bf16 instructions" in device_name("cpu")
    assert driver_version("cpu") and re.match(r"[0-9a-f]{7,}( with changes)?$|unknown$",
                                              code_version())  # fmt: skip
