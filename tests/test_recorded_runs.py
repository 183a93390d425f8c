"""Rows of systems, and the recorded runs that stand in where a library cannot run."""

import dataclasses
import json

import pytest

from utils.peers import TrainingJob
from utils.peers.harness import one_process
from utils.peers.ours import zero_system
from utils.peers.recorded_runs import (
    FOLDER,
    main,
    peer_row,
    read_peer,
    recorded_deepspeed,
    recorded_now,
    write_peer,
)
from utils.recorded import load_recorded

JOB = TrainingJob(num_steps=2)


@pytest.fixture(scope="module")
def row():
    return peer_row("stage 1", zero_system(1), 2, JOB)


def test_a_row_holds_what_the_run_did(row):
    assert (row.setting, row.world_size, row.low_precision) == ("stage 1", 2, False)
    assert row.loss_gap < 1e-5
    assert row.losses == pytest.approx(one_process(JOB).losses, abs=1e-5)
    assert row.held_per_parameter == pytest.approx(8 + 8 / 2, rel=0.01)
    assert row.peak_bytes > sum(row.held.values())
    assert row.textbook_traffic <= row.traffic and row.step_s > 0


def test_what_is_written_is_read_again(row, tmp_path):
    recorded = recorded_now("ours", "1.0", JOB, [row, row])
    path = write_peer("ours", recorded, tmp_path)
    assert read_peer("ours", tmp_path) == recorded
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert recorded.label.startswith("ours 1.0, torch 2.") and recorded.date in recorded.label


def test_the_recorded_deepspeed_is_whole_and_keeps_its_promises():
    recorded = recorded_deepspeed()
    keys = {(row.setting, row.world_size, row.low_precision) for row in recorded.rows}
    assert len(recorded.rows) == len(keys) == 5 * 2 * 2
    assert recorded.version.startswith("0.19.") and recorded.job == TrainingJob()
    oracle = one_process(recorded.job)
    for row in recorded.rows:
        gap = max(abs(a - b) for a, b in zip(row.losses, oracle.losses, strict=True))
        assert gap == pytest.approx(row.loss_gap, abs=1e-5)
        assert gap < (5e-3 if row.low_precision else 1e-5)


def test_it_is_no_recorded_device(capsys):
    for experiment in ("step_precision", "deepspeed"):
        load_recorded(experiment)
    assert capsys.readouterr().out == ""  # which would name files that it skips
    assert FOLDER.parent.name == "data" and FOLDER.name not in ("recorded",)


@pytest.mark.parametrize("damage", ["missing", "torn", "list", "schema", "field", "job"])
def test_a_damaged_file_is_named_with_the_way_out(row, tmp_path, damage):
    path = write_peer("ours", recorded_now("ours", "1.0", JOB, [row]), tmp_path)
    text = path.read_text()
    data = json.loads(text)
    damaged = {
        "torn": text[: len(text) // 2],
        "list": "[]",
        "schema": json.dumps({**data, "schema": 99}),
        "field": json.dumps({**data, "rows": [{"setting": "stage 1"}]}),
        "job": json.dumps({**data, "job": dataclasses.asdict(JOB) | {"unknown": 1}}),
    }
    path.unlink() if damage == "missing" else path.write_text(damaged[damage])
    with pytest.raises(ValueError, match=r"^ours\.json is not a recorded run \(\w+\): restore"):
        read_peer("ours", tmp_path)


def test_the_command_names_what_it_can_record(capsys):
    assert main([]) == main(["nobody"]) == 2
    assert capsys.readouterr().err == "Name what to record: deepspeed, yafsdp.\n" * 2
