"""Recorded runs in a lesson: what is shown, what is compared, what is said when there are none."""

import configparser
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.recorded_run import NAME, RUN, as_data, nothing_unsaid
from utils.recorded import load_recorded, show_recorded, write_recorded

pytestmark = pytest.mark.usefixtures(nothing_unsaid.__name__)


def test_skipped_files_are_named_in_the_block_that_is_not_compared(tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("utils.recorded.measured_text", lambda title, text: shown.append(text))
    (tmp_path / "bad.json").write_text("{")
    load_recorded(NAME, folder=tmp_path)
    load_recorded(NAME, folder=tmp_path)
    assert capsys.readouterr().out == "" and not shown
    show_recorded("Speed", ["device"], [], kinds=[])
    assert shown[0].count("Skipped bad.json: it cannot be read") == 1
    show_recorded("Speed", ["device"], [], kinds=[])
    assert "Skipped" not in shown[1]


def test_no_file_that_anybody_adds_changes_what_is_compared(tmp_path, monkeypatch):
    """nbval's own rules, on the block of a folder that is empty, has a GPU, has damaged files."""
    rules = configparser.RawConfigParser()
    text = (Path(__file__).parent / "nbval_sanitize.cfg").read_text()
    rules.read_string(text[text.index("[") :])
    published = []
    monkeypatch.setattr("utils.measured.publish", lambda data, *_: published.append(data))

    def show_all():
        runs = load_recorded(NAME, folder=tmp_path)
        rows = [[run.label, run.experiments[NAME][0]["seconds"]] for run in runs]
        show_recorded("Speed", ["device", "s"], rows, [run.kind for run in runs])

    show_all()
    write_recorded(replace(RUN, device="GPU <b>&amp;", kind="cuda"), tmp_path)
    show_all()
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "nan.json").write_text(json.dumps(as_data() | {"experiments": {NAME: [{}]}}))
    show_all()
    assert len({data["text/html"] for data in published}) == 3
    for section in rules.sections():
        for data in published:
            data["text/html"] = re.sub(
                rules[section]["regex"], rules[section]["replace"], data["text/html"]
            )
    assert published[0] == published[1] == published[2]
    assert "MEASURED" in published[0]["text/html"] and "Speed" in published[0]["text/html"]


def test_a_missing_gpu_is_said_and_never_invented(monkeypatch):
    shown = []
    monkeypatch.setattr("utils.recorded.measured_text", lambda title, text: shown.append(text))
    show_recorded("Speed", ["device", "rate"], [["Chip X 1", 5]], kinds=["cpu"])
    assert shown[0].splitlines()[1] == "Chip X 1  5"
    assert "GPU: not recorded yet" in shown[0]
    show_recorded("Speed", ["device", "rate"], [], kinds=["cuda"])
    assert "not recorded" not in shown[1]
