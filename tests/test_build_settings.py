"""A notebook runs alike in the build and under nbval, and only measurements escape comparison."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from nbval.plugin import get_sanitize_patterns

from utils.build import plan as build_plan
from utils.build import run as build_run

REPOSITORY = Path(__file__).resolve().parents[1]
MARK = "\u23f1"


def test_tests_and_build_run_kernels_alike(tmp_path: Path) -> None:
    settings = build_plan.kernel_settings(REPOSITORY, tmp_path, "")
    assert os.environ["OMP_NUM_THREADS"] == settings["OMP_NUM_THREADS"] == "1"
    for key in ("COURSE_PROGRESS", "IPYTHONDIR"):  # conftest.py has set them
        assert REPOSITORY not in Path(os.environ[key]).parents
        assert Path(settings[key]).parent == tmp_path
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(REPOSITORY)
    assert not Path(os.environ["COURSE_PROGRESS"]).exists()


def test_user_settings_do_not_reach_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PYTHONPATH", "theirs")
    settings = build_run.environment(REPOSITORY, tmp_path)
    assert "MPLBACKEND" not in settings
    assert settings["PYTHONPATH"] == os.pathsep.join([str(REPOSITORY), "theirs"])


def test_sanitize_rules_cut_measurements_only() -> None:
    text = (REPOSITORY / "tests" / "nbval_sanitize.cfg").read_bytes().decode("ascii")
    rules = get_sanitize_patterns(text)
    assert len(rules) == 4

    def cut(output: str) -> str:
        for pattern, replacement in rules:
            output = re.sub(pattern, replacement, output)
        return output

    assert cut(f"a {MARK} 8.8 ms {MARK} b {MARK} 9 {MARK} 7") == "a MEASURED b MEASURED 7"
    assert cut(f"{MARK} open\n9 {MARK}") == f"{MARK} open\n9 {MARK}"  # never over lines
    cells = '<td class="measured">8</td><td>9</td>'
    assert cut(cells) == '<td class="measured">MEASURED</td><td>9</td>'
    block = '<pre class="measured">one\n&lt;two&gt;</pre><pre>3</pre>'
    assert cut(block) == '<pre class="measured">MEASURED</pre><pre>3</pre>'
    assert cut("<A at 0x7f12ab34cd>, 0xff") == "<A at ADDRESS>, 0xff"
