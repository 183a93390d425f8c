"""Recorded runs: written whole, read back; a bad file, or a bad row in it, is named and skipped."""

import json
from dataclasses import replace

import pytest

from tests.recorded_run import NAME, ROWS, RUN, as_data, nothing_unsaid
from utils.experiments.registry import EXPERIMENTS
from utils.recorded import (
    FOLDER,
    load_recorded,
    path_of,
    read_recorded,
    write_recorded,
)
from utils.recorded_rows import CHECKS, MAYBE, ROW_KEYS, rows_problem

pytestmark = pytest.mark.usefixtures(nothing_unsaid.__name__)


def load(folder, experiment=NAME, **options):
    """The runs, and what was said about skipped files."""
    said = []
    return load_recorded(experiment, folder=folder, report=said.append, **options), said


def test_a_run_is_written_and_read_back(tmp_path):
    path = write_recorded(RUN, tmp_path)
    assert path.name == "chip-x-1.json" and path == path_of("Chip X 1", tmp_path)
    assert load(tmp_path) == ([RUN], [])
    assert load(tmp_path, "other") == ([], [])
    assert load(tmp_path, kind="cuda") == ([], [])
    assert RUN.label == "Chip X 1, torch 2.13.0, 2026-11-23"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_file_of_the_first_sessions_is_still_read(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps(as_data()))
    assert load(tmp_path) == ([RUN], [])


@pytest.mark.parametrize(
    "content, words",
    [
        ("{not json", "cannot be read"),
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1, 2]", "not written by `make record`"),
        ("null", "not written by `make record`"),
        (json.dumps({"schema": 99}), "not written by `make record`"),
        (json.dumps({"schema": 1, "device": "x"}), "it lacks kind"),
        ("\udcff".encode("utf-8", "surrogateescape"), "cannot be read"),
    ],
)
def test_a_damaged_or_foreign_file_is_named_and_skipped(tmp_path, content, words):
    write_recorded(RUN, tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    runs, said = load(tmp_path)
    assert runs == [RUN]
    assert len(said) == 1 and said[0].startswith("Skipped bad.json: ") and words in said[0]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"device": 5}, "its device is 5, not a text"),
        ({"device": ""}, "its device is '', not a text"),
        ({"torch": None}, "its torch is None"),
        ({"kind": "tpu"}, "its kind is 'tpu', not cpu or cuda"),
        ({"date": "yesterday"}, "its date is 'yesterday', not like 2026-11-24"),
        ({"date": 20261124}, "its date is 20261124"),
        ({"experiments": []}, "lacks experiments"),
        ({"experiments": {NAME: {}}}, "its matmul_precision is no list of rows"),
        ({"experiments": {NAME: [1]}}, "its matmul_precision is no list of rows"),
        ({"made": [1]}, "its made is not what"),
        ({"made": {NAME: "x"}}, "its made is not what"),
        ({"made": {NAME: {"date": 3}}}, "its made of matmul_precision is not what"),
        ({"skipped": {NAME: 3}}, "its skipped is not what"),
    ],
)
def test_a_file_with_a_wrong_frame_is_named_and_skipped(tmp_path, changes, words):
    (tmp_path / "bad.json").write_text(json.dumps(as_data() | changes))
    runs, said = load(tmp_path)
    assert runs == [] and len(said) == 1
    assert words in said[0] and said[0].endswith("; record it again.")


@pytest.mark.parametrize(
    "row, words",
    [
        ({"seconds": "1 s"}, "has '1 s' for seconds in row 2, not a number above 0"),
        ({"seconds": None}, "has None for seconds in row 2"),
        ({"seconds": float("nan")}, "has nan for seconds in row 2"),
        ({"seconds": 0}, "has 0 for seconds in row 2"),
        ({"seconds": True}, "has True for seconds in row 2"),
        ({"size": 64.5}, "has 64.5 for size in row 2, not a whole number"),
        ({"precision": ["fp32"]}, "has ['fp32'] for precision in row 2, not a text"),
        ({"precision": None, "seconds": 1}, "has None for precision"),
    ],
)
def test_wrong_types_in_a_row_cost_only_that_experiment(tmp_path, row, words):
    steps = [{"precision": "fp32", "seconds": 1.0, "flops_per_s": 1.0, "peak_bytes": None}]
    mixed = {NAME: [*ROWS, ROWS[0] | row], "step_precision": steps}
    (tmp_path / "mixed.json").write_text(json.dumps(as_data(replace(RUN, experiments=mixed))))
    runs, said = load(tmp_path)
    assert runs == [] and said[0].startswith("Skipped mixed.json: its matmul_precision ")
    assert words in said[0]
    runs, said = load(tmp_path, "step_precision")
    assert [run.device for run in runs] == ["Chip X 1"] and said == []


def test_no_rows_a_missing_key_and_keys_that_may_lack():
    assert rows_problem(NAME, []) == "has no rows"
    assert rows_problem(NAME, [{"precision": "fp32"}]) == "lacks size in row 1"
    assert rows_problem("a new experiment", [{"anything": []}]) == ""
    plan = dict.fromkeys(ROW_KEYS["checkpointing"]) | {
        "attention": "fused", "plan": "none", "num_tokens": 8,
    }  # fmt: skip
    held = plan.pop("held_bytes")
    assert rows_problem("checkpointing", [plan]) == "" and held is None
    assert rows_problem("checkpointing", [plan | {"held_bytes": -1}]).startswith("has -1 for held")


def test_every_experiment_says_what_its_rows_hold():
    assert set(EXPERIMENTS) <= set(ROW_KEYS)
    kinds = {kind for keys in ROW_KEYS.values() for kind in keys.values()}
    assert {kind.removeprefix(MAYBE).removesuffix("?") for kind in kinds} <= set(CHECKS)


def test_a_run_carries_the_date_of_the_experiment_that_is_asked_for(tmp_path):
    made = {NAME: {"date": "2026-01-02", "torch": "2.11.0", "seconds": 3.5}}
    write_recorded(replace(RUN, made=made), tmp_path)
    (run,), _ = load(tmp_path)
    assert run.label == "Chip X 1, torch 2.11.0, 2026-01-02"
    assert run.code_version == "abc" and RUN.of("other") == RUN


@pytest.mark.parametrize("bad", [float("nan"), {1, 2}])
def test_what_json_cannot_hold_leaves_the_older_file(tmp_path, bad):
    path = write_recorded(RUN, tmp_path)
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        write_recorded(replace(RUN, experiments={NAME: [{"seconds": bad}]}), tmp_path)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


def test_a_full_disk_leaves_the_older_file(tmp_path, monkeypatch):
    path = write_recorded(RUN, tmp_path)
    before = path.read_bytes()

    def half(self, text, encoding):
        self.write_bytes(text.encode()[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write_recorded(replace(RUN, date="2026-11-24"), tmp_path)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


def test_every_recorded_file_of_the_course_is_whole():
    paths = sorted(FOLDER.glob("*.json"))
    assert paths
    for path in paths:
        run, problem = read_recorded(path)
        assert run is not None, problem
        for name, rows in run.experiments.items():
            assert rows_problem(name, rows) == "", (path.name, name)
