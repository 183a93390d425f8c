"""The Makefile's set-up: a half-made .venv is never taken as ready, a ready one is left alone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path):
    """A folder with a space in its path that holds only what the set-up reads."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "requirements-lock.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(folder, *arguments):
    """Run make there, unaffected by the make that may be running these tests."""
    ours = {key: text for key, text in os.environ.items() if key[:4] not in ("MAKE", "MFLA")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=ours, capture_output=True, text=True, timeout=60
    )


def script(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_make_alone_lists_the_commands(clone):
    listed = make(clone)
    names = {line.split()[0] for line in listed.stdout.splitlines()[1:]}
    assert {"lab", "test", "check-env", "build", "my-labs", "bench", "browser-venv"} <= names
    assert listed.returncode == 0 and not (clone / ".venv").exists()


def test_a_missing_or_old_python_is_one_sentence(clone):
    for python in ("no-such-python", str(script(clone / "old python", "exit 1"))):
        refused = make(clone, "venv", f"PYTHON={python}")
        assert refused.returncode != 0
        assert f'needs Python 3.10 or newer, and "{python}" is older or missing' in refused.stderr
        assert not (clone / ".venv").exists()


def test_a_half_made_venv_is_removed(clone):
    half = 'if [ "$1" = -m ]; then mkdir -p .venv/bin; exit 1; fi'
    python = script(clone / "half python", half)
    refused = make(clone, "venv", f"PYTHON={python}")
    assert refused.returncode != 0 and "could not make .venv" in refused.stderr
    assert not (clone / ".venv").exists()


def test_ready_only_after_the_packages_and_then_left_alone(clone):
    log = clone / "calls"
    # Stands for .venv's Python: runs, has pip, and installs only where `network` exists.
    body = """case "$*" in
        *"pip install"*) echo installed >> calls; test -e network ;;
        *runs*) echo runs ;;
    esac"""
    script(clone / ".venv/bin/python", body)
    failed = make(clone, "venv")
    assert failed.returncode != 0 and "installation did not finish" in failed.stderr
    assert not (clone / ".venv/.ready").exists()
    (clone / "network").touch()
    assert make(clone, "venv").returncode == 0
    assert (clone / ".venv/.ready").exists()
    (clone / "network").unlink()
    assert make(clone, "venv").returncode == 0
    assert log.read_text().splitlines() == ["installed", "installed"]


def test_changed_requirements_and_a_vanished_python_are_noticed(clone):
    script(clone / ".venv/bin/python", 'case "$*" in *runs*) echo runs ;; esac')
    assert make(clone, "venv").returncode == 0
    stamp = clone / ".venv/.ready"
    os.utime(stamp, (0, 0))
    assert make(clone, "--question", "venv").returncode == 1
    assert make(clone, "venv").returncode == 0
    assert make(clone, "--question", "venv").returncode == 0
    (clone / ".venv/bin/python").unlink()
    assert make(clone, "--question", "venv").returncode == 1
