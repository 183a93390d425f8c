"""Devcontainer and Binder: their files can be read, and install what the README installs."""

import json
import os
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def container():
    text = (ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8")
    return json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))


def test_the_devcontainer_sets_up_like_the_readme():
    settings = container()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"make ([a-z-]+)", settings["postCreateCommand"])
    assert commands == ["venv", "check-env"]
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in commands)
    python = settings["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python.removeprefix("${containerWorkspaceFolder}/") == ".venv/bin/python"
    assert settings["hostRequirements"]["cpus"] >= 2


def test_containers_have_a_python_that_the_course_is_tried_on():
    version = re.fullmatch(r"python:(3\.\d+)-\w+", container()["image"])[1]
    runtime = (ROOT / "binder/runtime.txt").read_text().strip()
    assert runtime == f"python-{version}" and version in ("3.10", "3.11", "3.12", "3.13")


def test_binder_installs_the_bounds_at_the_locked_versions():
    lines = (ROOT / "binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    options = [line.split() for line in lines if not line.startswith("#")]
    assert [option for option, _ in options] == ["-c", "-r"]
    for _, name in options:
        text = (ROOT / "binder" / name).read_text(encoding="utf-8")
        kept = [Requirement(line) for line in text.splitlines() if line and line[0] != "#"]
        assert "torch" in {requirement.name for requirement in kept}


@pytest.mark.skipif(os.name == "nt", reason="a file has no executable bit there")
def test_binders_start_script_hands_over():
    start = ROOT / "binder/start"
    assert os.access(start, os.X_OK)
    assert start.read_text().splitlines()[-1] == 'exec "$@"'
