"""The keeper of `utils.prove`: it says how its command ended, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prove_course import ROOT
from tests.rank_processes import alive, descendants, gone
from utils.proving import keeper

WAITS = """
from pathlib import Path
from time import sleep
Path("begun").touch()
while not Path("go").exists():
    sleep(0.05)
"""
pytestmark = pytest.mark.skipif(not keeper.IS_LINUX, reason="reads /proc")


def keep(command: list[str], folder: Path, load: list[int]) -> subprocess.Popen[str]:
    """A keeper of this command; closing its input ends it."""
    asked = {"cores": None, "load": load, "command": command, "folder": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "utils.proving.keeper", json.dumps(asked)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def found() -> Iterator[set[int]]:
    """Processes that a keeper without its virtues would leave behind: ended in any case."""
    pids: set[int] = set()
    yield pids
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)


def wait_for(file: Path) -> None:
    """Until a process has written it."""
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file.exists()


def test_the_keeper_gives_the_status_and_leaves_no_orphan(tmp_path: Path, found: set[int]) -> None:
    orphan = "(setsid sleep 600 & echo $! > orphan); "
    for end, status in (("exit 3", 3), ("kill -9 $$", 137)):
        kept = keep(["sh", "-c", orphan + end], tmp_path, [-1])
        kept.wait(60)
        assert kept.returncode == status
        found.add(int((tmp_path / "orphan").read_text()))
        assert gone(found)


def test_the_keeper_buries_orphans_that_end_during_the_run(tmp_path: Path) -> None:
    """Notebooks look whether processes are gone: a zombie, adopted and forgotten, would not be."""
    (tmp_path / "look.sh").write_text(
        "(sleep 0.2 & echo $! > orphan)\n"
        "for turn in $(seq 600); do kill -0 $(cat orphan) 2>&- || exit 0; sleep 0.1; done; exit 1"
    )
    kept = keep(["sh", "look.sh"], tmp_path, [])
    assert kept.wait(120) == 0


def test_the_command_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    """Also in the background of a shell, where Ctrl-C is ignored: pytest has folders to remove."""
    tidies = f"try:\n    exec({WAITS!r})\nexcept KeyboardInterrupt:\n    Path('tidied').touch()"
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        kept = keep([sys.executable, "-c", tidies], tmp_path, [-1])
    finally:
        signal.signal(signal.SIGINT, usual)
    wait_for(tmp_path / "begun")
    assert kept.stdin
    kept.stdin.close()
    assert kept.wait(60) == keeper.STOPPED
    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize("whom", ["the load", "the keeper"])
def test_a_killed_part_ends_the_rest(tmp_path: Path, found: set[int], whom: str) -> None:
    """Without its load a run proves nothing; without its keeper nobody would end it."""
    kept = keep([sys.executable, "-c", WAITS], tmp_path, [-1])
    wait_for(tmp_path / "begun")
    found |= descendants(kept.pid)
    load = next(p for p in found if "proving.load" in Path(f"/proc/{p}/cmdline").read_text())
    os.kill(load if whom == "the load" else kept.pid, signal.SIGKILL)
    if whom == "the load":
        assert gone({load})
        (tmp_path / "go").touch()
        assert kept.wait(60) == keeper.LOAD_FAILED
        assert kept.stdout and "A load process ended before" in kept.stdout.read()
    assert gone({kept.pid, *found})
