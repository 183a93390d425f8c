"""`make record`: which experiments run, for how long, what is kept of a run that goes wrong."""

import json
import re
from dataclasses import replace

import pytest
import torch

from tests.record_runner import ROWS, Runner
from utils import record as recording
from utils.experiments.registry import EXPERIMENTS, Experiment
from utils.record import record, share_s
from utils.record_apart import Outcome
from utils.record_where import device_name
from utils.recorded import RecordedRun, path_of, read_recorded, write_recorded
from utils.recorded_rows import rows_problem

NAMES = list(EXPERIMENTS)
OLD = RecordedRun(
    device_name("cpu"), "cpu", "Linux", "2.11.0", "2026-01-02", "0ld", {NAMES[0]: ROWS}
)


@pytest.fixture(autouse=True)
def no_git(monkeypatch):
    monkeypatch.setattr(recording, "code_version", lambda: "abc1234")


def test_everything_runs_once_and_is_written_after_each(tmp_path):
    run = Runner(folder=tmp_path)
    kept, failed = record("cpu", tmp_path, run=run)
    assert [name for name, _, _ in run.asked] == NAMES and failed == []
    assert run.on_disk[0] is None
    assert [len(each.experiments) for each in run.on_disk[1:]] == list(range(1, len(NAMES)))
    on_disk, problem = read_recorded(path_of(kept.device, tmp_path))
    assert on_disk == kept and problem == ""
    assert list(kept.experiments) == NAMES and kept.kind == "cpu"
    assert kept.torch == torch.__version__ and re.fullmatch(r"\d{4}-\d\d-\d\d", kept.date)
    assert kept.made[NAMES[0]]["seconds"] == 2.0
    assert kept.made[NAMES[0]]["code_version"] == "abc1234"


def test_what_fails_or_is_not_here_is_named_and_loses_nothing(tmp_path, capsys):
    write_recorded(OLD, tmp_path)
    answers = {
        NAMES[0]: Outcome(1.0, problem="ran out of memory", is_failure=True),
        NAMES[1]: Outcome(1.0, problem="needs two GPUs, and this machine has 1"),
    }
    kept, failed = record("cpu", tmp_path, run=Runner(answers))
    assert failed == [NAMES[0]]
    assert kept.skipped == {
        NAMES[0]: "ran out of memory", NAMES[1]: "needs two GPUs, and this machine has 1",
    }  # fmt: skip
    assert kept.experiments[NAMES[0]] == ROWS  # the older rows, under their own date
    assert kept.of(NAMES[0]).label.endswith("torch 2.11.0, 2026-01-02")
    assert kept.of(NAMES[2]).date == kept.date != "2026-01-02"
    assert NAMES[1] not in kept.experiments and len(kept.experiments) == len(NAMES) - 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{NAMES[0]} on cpu: skipped, ran out of memory (1 s)"
    assert said[2] == f"{NAMES[2]} on cpu: 1 rows in 2 s"


def test_an_interrupt_keeps_what_was_finished(tmp_path):
    run = Runner({NAMES[2]: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        record("cpu", tmp_path, run=run)
    kept, _ = read_recorded(path_of(device_name("cpu"), tmp_path))
    assert list(kept.experiments) == NAMES[:2]
    assert not list(tmp_path.glob("*.tmp"))


def test_only_some_are_recorded_again_and_the_others_keep_their_date(tmp_path):
    write_recorded(replace(OLD, skipped={NAMES[3]: "ran out of memory"}), tmp_path)
    run = Runner()
    kept, _ = record("cpu", tmp_path, only=[NAMES[3], NAMES[1]], run=run)
    assert [name for name, _, _ in run.asked] == [NAMES[1], NAMES[3]]
    assert list(kept.experiments) == [NAMES[0], NAMES[1], NAMES[3]]
    assert kept.of(NAMES[0]).code_version == "0ld" and kept.of(NAMES[1]).code_version == "abc1234"
    assert kept.skipped == {}


def test_a_damaged_file_of_this_device_is_set_aside(tmp_path, capsys):
    path = path_of(device_name("cpu"), tmp_path)
    path.write_text("{torn")
    record("cpu", tmp_path, only=NAMES[:1], run=Runner())
    assert path.with_name(path.name + ".damaged").read_text() == "{torn"
    assert "is set aside as" in capsys.readouterr().out
    assert read_recorded(path)[0] is not None


def test_the_time_left_is_shared_by_what_each_usually_takes(tmp_path):
    def usual(cpu_s):
        return Experiment("x", "x", "x", "01", "x", cpu_s, 2 * cpu_s)

    assert share_s([usual(10), usual(30)], "cpu", 40) == 10
    assert share_s([usual(10), usual(30)], "cpu", 80) == 20 + 40 / 2
    assert share_s([usual(10), usual(30)], "cpu", 20) == 5
    assert share_s([usual(30)], "cpu", 60) == 60
    assert share_s([usual(10)], "cuda", -5) == 0
    run = Runner()
    record("cpu", tmp_path, budget_s=100, run=run)
    limits = [limit_s for _, _, limit_s in run.asked]
    total_s = sum(each.cpu_s for each in EXPERIMENTS.values())
    assert limits[0] == pytest.approx(100 * EXPERIMENTS[NAMES[0]].cpu_s / total_s, rel=0.01)
    assert limits[-1] > 95  # nothing was used up before it


def test_one_that_hangs_leaves_the_others_their_usual_time():
    for kind in ("cpu", "cuda"):
        seconds, left = recording.BUDGET_S, list(EXPERIMENTS.values())
        while left:
            limit_s = share_s(left, kind, seconds)
            assert limit_s >= left[0].usual_s(kind)
            seconds -= limit_s if left[0].name == "checkpointing" else left[0].usual_s(kind)
            left.pop(0)


def test_the_usual_times_fit_into_the_budget():
    for kind in ("cpu", "cuda"):
        total_s = sum(each.usual_s(kind) for each in EXPERIMENTS.values())
        assert total_s < 0.85 * recording.BUDGET_S


def test_every_entry_leads_to_a_function_that_takes_a_device():
    for name, experiment in EXPERIMENTS.items():
        assert callable(experiment.load()), name


def test_a_whole_recording_of_the_quick_ones_in_processes_of_their_own(tmp_path):
    names = ["step_precision", "collectives"]
    kept, failed = record("cpu", tmp_path, only=names, budget_s=400)
    assert failed == [] and list(kept.experiments) == names
    data = json.loads(path_of(kept.device, tmp_path).read_text())
    for name in names:
        assert rows_problem(name, data["experiments"][name]) == ""
