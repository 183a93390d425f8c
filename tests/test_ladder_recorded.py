"""Ladders that were recorded: they come back as they were, with prices by kind of device."""

import json
import math
from dataclasses import replace

import pytest

from tests.ladder_rows import result
from utils.config import GPTConfig
from utils.experiments.ladder import CONFIG, RUNGS, RungResult
from utils.experiments.ladder_results import result_of, row_of
from utils.ladder_report import EXPERIMENT, RECORDED_HEADERS, recorded_rows
from utils.recorded import RecordedRun, load_recorded, write_recorded


@pytest.fixture
def results():
    return [result(number) for number in range(8)]


def recorded(results, kind="cpu", device="a core"):
    rows = [row_of(each, CONFIG) for each in results]
    return RecordedRun(device, kind, "-", "2.13.0", "2026-11-25", "abc", {"ladder": rows})


def test_a_recorded_ladder_comes_back_as_it_was(results, tmp_path):
    results[7] = RungResult(RUNGS[7], problem="not run: no GPU")
    write_recorded(recorded(results), tmp_path)
    (run,) = load_recorded(EXPERIMENT, folder=tmp_path)
    again = [result_of(row) for row in run.experiments["ladder"]]
    assert again[:7] == results[:7]
    assert again[7].problem and again[7].timing is None and math.isnan(again[7].loss)
    assert GPTConfig(**run.experiments["ladder"][0]["config"]) == CONFIG
    assert "NaN" not in json.dumps(run.experiments)


def test_recorded_rows_have_prices_by_kind_and_reasons(results):
    results[7] = RungResult(RUNGS[7], problem="not run: 2 ranks need a GPU each")
    gpu = recorded(results, "cuda", "a GPU")
    rows = list(recorded_rows([recorded(results), gpu], {"cpu": 0.05, "cuda": 2.0}))
    assert [len(row) for row in rows] == [len(RECORDED_HEADERS)] * 16
    assert [bool(row[0]) for row in rows] == [True, *[False] * 7] * 2
    assert rows[0][1:] == ["fp32", "10.0", "10.0", "20,000", "$0.69", "3.000"]
    assert rows[8][0].startswith("a GPU, torch 2.13.0") and rows[8][5] == "$27.78"
    assert rows[7][1:3] == ["2 x YaFSDP", "not run: 2 ranks need a GPU each"]
    broken = replace(gpu, experiments={"ladder": [{"rung": "fp32"}]})
    (row,) = recorded_rows([broken], {"cpu": 0.05, "cuda": 2.0})
    assert row[1].startswith("cannot be read (KeyError)") and len(row) == len(RECORDED_HEADERS)
