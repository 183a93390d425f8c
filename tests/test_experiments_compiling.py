"""The compiling experiment, small: what is timed, what is refused, and when it pays back."""

import pytest
import torch

from utils.config import GPTConfig
from utils.experiments import compiling, software
from utils.experiments.compiling import (
    CACHE,
    compile_row,
    fresh_cache,
    missing_compiler,
    steps_to_pay_back,
    try_compiling,
)
from utils.recorded import RecordedRun
from utils.recorded_rows import rows_problem

TINY = GPTConfig(1, 2, 16, 16, 256)


def run_of(name, rows):
    return RecordedRun("CPU Y", "cpu", "Linux", "2.13.0", "2026-11-24", "abc", {name: rows})


def test_a_compiled_step_is_measured_or_says_why_not(monkeypatch):
    """Compiled by a stand-in that changes nothing: real kernels take half a minute."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(compiling, "missing_compiler", lambda: None)
    row = compile_row("tiny", TINY, 2, "cpu", repeats=5)
    assert rows_problem("compile", [row]) == "" and row["problem"] is None
    assert row["low_ratio"] <= row["ratio"] <= row["high_ratio"]
    monkeypatch.setattr(compiling, "missing_compiler", lambda: "there is no C++ compiler")
    row = compile_row("tiny", TINY, 2, "cpu", repeats=5)
    assert rows_problem("compile", [row]) == "" and row["compiled_s"] is None
    assert row["problem"] == "there is no C++ compiler" and row["eager_s"] > 0


@pytest.mark.parametrize(
    "compiled, words",
    [
        (lambda: torch.tensor(9.0), "the compiled loss is off by 8"),
        (lambda: [][0], "it did not compile (IndexError: list index out of range)"),
    ],
)
def test_a_wrong_or_failing_kernel_is_never_a_speed_up(monkeypatch, compiled, words):
    monkeypatch.setattr(compiling, "missing_compiler", lambda: None)
    _, problem = try_compiling(lambda: torch.tensor(1.0), compiled, "cpu")
    assert words in problem


def test_a_missing_compiler_is_noticed(monkeypatch):
    monkeypatch.setattr(compiling.sys, "platform", "linux")
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert "no C++ compiler" in missing_compiler()
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "there" if name == "c++" else None)
    assert missing_compiler() is None
    monkeypatch.setattr(compiling.sys, "platform", "win32")
    assert "Windows" in missing_compiler()


@pytest.mark.parametrize("before", [None, "mine"])
def test_the_cache_is_fresh_and_the_setting_comes_back(monkeypatch, before):
    monkeypatch.delenv(CACHE, raising=False)
    if before:
        monkeypatch.setenv(CACHE, before)
    with pytest.raises(KeyError), fresh_cache():
        import os

        assert os.environ[CACHE] != before and not os.listdir(os.environ[CACHE])
        raise KeyError
    import os

    assert os.environ.get(CACHE) == before


def test_when_compiling_pays_back():
    row = {"eager_s": 0.5, "compiled_s": 0.25, "compile_s": 10.0, "high_ratio": 0.6}
    assert steps_to_pay_back(row) == 40
    assert steps_to_pay_back(row | {"high_ratio": 1.0}) is None
    assert steps_to_pay_back(row | {"compiled_s": None}) is None


def test_compile_rows_in_words():
    row = {"model": "m", "eager_s": 0.5, "compiled_s": 0.25, "compile_s": 10.0, "low_ratio": 0.4,
           "ratio": 0.5, "high_ratio": 0.6, "problem": None}  # fmt: skip
    slow = row | {"high_ratio": 1.2}
    without = row | dict.fromkeys(("compiled_s", "compile_s", "low_ratio", "ratio", "high_ratio"))
    rows = [row, slow, without | {"problem": "there is no C++ compiler"}]
    assert rows_problem("compile", rows) == ""
    found = list(software.compile_rows([run_of("compile", rows)]))
    assert all(len(cells) == len(software.COMPILE_HEADERS) for cells in found)
    assert found[0] == ("CPU Y", "m", "500 ms", "250 ms", "0.50 (0.40 to 0.60)", "10 s", "40 steps")
    assert found[1][-1] == "never, or too noisy to tell"
    assert found[2][3] == "there is no C++ compiler"
