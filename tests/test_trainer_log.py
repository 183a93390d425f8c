"""The trainer's log: whole lines or none, and one continuous run for whoever reads it."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from utils.trainer.log import LOG_NAME, LogWriter, read_events, read_log
from utils.trainer.settings import TrainerError
from utils.trainer.start import News

START = {"schema": 1, "resumed_from": None}


def write_run(folder: Path, last: int = 4) -> Path:
    writer = LogWriter(folder)
    writer.write("start", **START)
    for step in range(1, last + 1):
        writer.write("step", step=step, loss=1 / step)
    writer.close()
    return folder / LOG_NAME


def test_a_run_is_read_back(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    writer.write("start", **START)
    writer.write("step", step=1, loss=0.5)
    writer.write("saved", step=1, folder="step-000001")
    writer.write("validation", step=1, loss=0.25)
    unfinished = read_log(tmp_path)
    assert (unfinished.losses, unfinished.end, unfinished.notes) == ([0.5], None, [])
    writer.write("end", step=1, ranks=[])
    log = read_log(tmp_path / LOG_NAME)
    assert log.is_finished and log.end["ranks"] == []
    assert [each["loss"] for each in log.validations] == [0.25]
    assert [each["folder"] for each in log.saved] == ["step-000001"]


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_last_line_that_was_cut_short_is_left_out(tmp_path: Path, cut: int) -> None:
    path = write_run(tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    log = read_log(tmp_path)
    if cut == 1:  # only the end of the line is missing: the event is whole
        assert len(log.losses) == 4 and log.notes == []
    else:
        assert len(log.losses) == 3
        assert log.notes == ["The last line was cut short and left out."]


def test_a_line_in_the_middle_that_is_no_event_is_named(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:12]
    lines.insert(4, '{"event": "step", "step": "three"}')
    path.write_text("\n".join(lines) + "\n")
    log = read_log(tmp_path)
    assert log.losses == [1.0, 1 / 3, 1 / 4]
    assert log.notes == [
        "Line 3 is no event of this trainer and was left out.",
        "Line 5 is no event of this trainer and was left out.",
        "1 steps have no line.",
    ]


@pytest.mark.parametrize("cuts", [True, False])
def test_a_resumed_run_reads_as_one(tmp_path: Path, cuts: bool) -> None:
    """Also when nobody has cut the log, as after a kill between the two."""
    write_run(tmp_path, last=4)
    writer = LogWriter(tmp_path)
    writer.write("stopped", step=4, reason="The disk is full.")
    assert read_log(tmp_path).notes == ["The disk is full."]
    if cuts:
        writer.cut(2)
        assert [each["event"] for each in read_events(writer.path)] == ["start", "step", "step"]
    writer.write("start", **START | {"resumed_from": 2})
    for step in (3, 4, 5):
        writer.write("step", step=step, loss=10.0 + step)
    log = read_log(tmp_path)
    assert log.losses == [1.0, 0.5, 13.0, 14.0, 15.0]
    assert [each["step"] for each in log.steps] == [1, 2, 3, 4, 5]
    assert log.start["resumed_from"] == 2 and len(log.starts) == 2
    assert log.notes == ["The run was resumed from step 2."]


def test_what_is_no_log_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no log .*give the folder of a run"):
        read_log(tmp_path / "nothing")
    path = tmp_path / "other.jsonl"
    for text in ("", "hello\n", '{"event": "step", "step": 1}\n', "[1]\n", "\0" * 100):
        path.write_text(text)
        with pytest.raises(ValueError, match="does not begin as a log of this trainer"):
            read_log(path)
    path.write_text(json.dumps({"event": "start", "schema": 2}) + "\n")
    with pytest.raises(ValueError, match="has schema 2, and this version reads 1"):
        read_log(path)


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    first = LogWriter(tmp_path)
    with pytest.raises(TrainerError, match="Another run writes into"):
        LogWriter(tmp_path)
    first.write("start", **START)
    first.cut(0)  # gives the name to another file, which is locked too
    with pytest.raises(TrainerError, match="Another run writes into"):
        LogWriter(tmp_path)
    first.close()
    LogWriter(tmp_path).close()


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = LogWriter(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(TrainerError, match=r"cannot be written.*make room and go on"):
            writer.write("step", step=5, loss=0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before


def test_no_number_is_never_written(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    with pytest.raises(ValueError):
        writer.write("step", step=1, loss=float("nan"))
    assert writer.path.read_bytes() == b""


def test_news_are_those_of_this_start(tmp_path: Path) -> None:
    """A run that goes on first takes lines away, and adds a start of its own."""
    writer, told = LogWriter(tmp_path), []
    writer.write("start", schema=1)
    for step in range(1, 5):
        writer.write("step", step=step, loss=1.0)
    news = News(writer.path, told.append)
    news.tell()
    writer.cut(2)
    news.tell()
    assert told == []
    writer.write("start", schema=1, resumed_from=2)
    news.tell()
    writer.write("step", step=3, loss=2.0)
    writer.write("step", step=4, loss=3.0)
    news.tell()
    news.tell()
    assert [each.get("loss") for each in told] == [None, 2.0, 3.0]
