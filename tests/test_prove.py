"""`python -m utils.prove` on small made-up courses: what is repeated, under what, and its end."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.prove_course import EVERY_SECOND_TIME, HANGS, make_course, start_prove
from tests.rank_processes import alive, descendants, gone
from utils import prove
from utils.proving import repetition
from utils.proving.records import read_records

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.slow
on_linux = pytest.mark.skipif(not CORES, reason="needs a system that limits a process's cores")
SEEN = "import os\nprint(sorted(os.sched_getaffinity(0)))"
NO_METADATA = '{"nbformat": 4, "nbformat_minor": 5, "cells": [{"cell_type": "code"}]}'
BESIDE = """
from pathlib import Path
import os
for entry in Path("/proc").glob("[0-9]*"):
    try:
        parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        words = (entry / "cmdline").read_text().split("\\0")
    except OSError:
        continue
    keeper = (Path("/proc") / str(os.getppid()) / "stat").read_text().rpartition(")")[2].split()[1]
    if "utils.proving.load" in words and parent == keeper:
        print("beside:", sorted(os.sched_getaffinity(int(entry.name))))
""".strip()


def run_prove(course: Path, log: Path, *words: object) -> int:
    """The command in this process."""
    return prove.main(["--folder", str(course), "--log", str(log), *map(str, words)])


def test_a_notebook_that_differs_every_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on, what failed is named and kept; a user's lax setting does not help it."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nbval-lax")
    course = make_course(
        tmp_path / "course", steady=[("print(1)", "1\n")],
        lab_odd=[("x = 1", ""), (EVERY_SECOND_TIME, "0\n")],
    )  # fmt: skip
    log = tmp_path / "log"
    assert run_prove(course, log, "--times", 2) == 1
    out = capsys.readouterr().out
    line = r"repetition (\d) of 2 .*: (\d) passed, (\d) failed, \u23f1 .* s \u23f1"
    counts = re.findall(line, out)
    assert counts == [("1", "3", "0"), ("2", "2", "1")]
    assert re.findall("failed: (.*)", out) == ["labs/lab_odd.ipynb::Cell 1"]
    assert "2 of 2 repetitions done, 1 failed; 6 cells compared." in out
    records, _ = read_records(log)
    assert [record.has_passed for record in records] == [True, False]
    assert sorted(os.listdir(log)) == sorted(["records.jsonl", records[1].log])
    assert "mismatch 'stdout'" in (log / records[1].log).read_text()
    assert prove.main(["--summary", str(log)]) == 1
    assert "1 x labs/lab_odd.ipynb::Cell 1 (" in capsys.readouterr().out


@on_linux
def test_cores_load_and_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The notebooks themselves see one core, and beside them a load on the same core."""
    seen, beside = f"{CORES[:1]}\n", f"beside: {CORES[:1]}\n"
    course = make_course(
        tmp_path / "course", looks=[(SEEN, seen), (BESIDE, beside)], lab_last=[("print(1)", "1\n")]
    )
    before = descendants(os.getpid())
    asked = ("--cores", 1, "--load", 1, "--shuffle", 4, "--times", 2)
    assert run_prove(course, tmp_path / "log", *asked) == 0, capsys.readouterr().out
    assert "1 core, 1 busy process, random order of seed 4" in capsys.readouterr().out
    records, _ = read_records(tmp_path / "log")
    ran = [list(record.notebook_s) for record in records]
    assert ran == [record.order for record in records] and ran[0] != ran[1]
    assert gone(descendants(os.getpid()) - before)


@on_linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_command(tmp_path: Path, how: signal.Signals) -> None:
    """However it ends: neither pytest nor a kernel nor the load is left, and records stay."""
    course = make_course(tmp_path / "course", hangs=[(HANGS, "")])
    log = tmp_path / "log"
    log.mkdir()
    (log / "records.jsonl").write_text("an older line\n")
    command = start_prove("--folder", course, "--log", log, "--load", 2)
    started: set[int] = set()
    try:
        while not (course / "notebooks" / "begun.txt").exists() and command.poll() is None:
            time.sleep(0.05)
        started = descendants(command.pid)
        assert len(started) >= 5, "a keeper, two processes of load, pytest, a kernel"
        command.send_signal(how)
        _, err = command.communicate(timeout=60)
        assert gone(started, within_s=60)
    finally:
        command.kill()
        for process in filter(alive, started):
            os.kill(process, signal.SIGKILL)
    assert command.returncode == (130 if how == signal.SIGINT else -how)
    assert (log / "records.jsonl").read_text() == "an older line\n"
    if how == signal.SIGINT:
        assert err.strip().startswith("Stopped; ") and "Traceback" not in err


def test_a_cell_over_its_limit_and_a_run_over_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fails by name and the next notebook runs; the second is ended and says so."""
    course = make_course(
        tmp_path / "course", cell_timeout_s=2, hangs=[(HANGS, "")], later=[("print(1)", "1\n")]
    )
    assert run_prove(course, tmp_path / "log") == 1
    out = capsys.readouterr().out
    assert "1 passed, 1 failed" in out and "failed: notebooks/hangs.ipynb::Cell 0" in out
    monkeypatch.setattr(repetition, "LIMIT_S_PER_NOTEBOOK", 0.5)
    assert run_prove(course, tmp_path / "log2", "--only", "later") == 1
    assert "it did not end by itself and was ended" in capsys.readouterr().out


def test_what_was_not_compared_has_not_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No code at all, a cell that asks to be skipped, a file that only looks like a notebook."""
    course = make_course(
        tmp_path / "course", empty=[], skips=[("print(1)", "2\n", "nbval-skip"), ("x = 1", "")]
    )
    assert run_prove(course, tmp_path / "log", "--only", "skips") == 1
    assert "failed: notebooks/skips.ipynb (1 of 2 cells compared)" in capsys.readouterr().out
    assert run_prove(course, tmp_path / "log", "--only", "empty") == 1
    assert "failed: notebooks/empty.ipynb (0 of 0 cells compared)" in capsys.readouterr().out
    (course / "notebooks" / "empty.ipynb").write_text(NO_METADATA)
    assert run_prove(course, tmp_path / "log", "--only", "empty") == 1
    assert "failed: notebooks/empty.ipynb (not readable)" in capsys.readouterr().out
