"""The levers: every factor has a source, recorded ones are read, and the figure shows them all."""

import csv
import re
from dataclasses import replace
from datetime import date

import pytest

from utils import levers as module
from utils.data import FOLDER as TABLES
from utils.lever_readers import READERS
from utils.levers import KINDS, LEVER_HEADERS, Lever, draw_levers, lever_rows, levers, range_text
from utils.measured import MARK
from utils.plots import new_figure, png_of
from utils.prices import load_rental_prices, price_spread
from utils.recorded import RecordedRun, write_recorded
from utils.recorded_rows import ROW_KEYS, rows_problem

ROWS = {
    "step_precision": [
        {"precision": name, "seconds": s, "flops_per_s": 1e9, "peak_bytes": None}
        for name, s in (("fp32", 6.0), ("bf16", 1.5), ("fp16", 9.0))
    ],
    "whole_step": [
        {"recipe": "x", "precision": name, "library": library, "seconds": 1.0,
         "tokens_per_s": 1.0, "peak_bytes": size}
        for name, library, size in (("fp32", "torch", 80), ("bf16", "torch", 50),
                                    ("bf16", "ours", 7))
    ],
    "checkpointing": [
        {"attention": attention, "plan": plan, "num_tokens": 8, "held_bytes": 100,
         "peak_bytes": peak, "seconds": 1.0, "flops": 1, "largest_batch": 1,
         "largest_batch_seconds": 1.0}
        for attention, plan, peak in (
            ("fused", "none", 500), ("fused", "full", 200), ("explicit", "none", None),
            ("explicit", "full", 300),
        )
    ],
    "attention": [
        {"attention": name, "context_length": length, "seconds": s, "peak_bytes": size}
        for name, length, s, size in (
            ("explicit", 128, 3.0, 60), ("fused", 128, 2.0, 40), ("explicit", 256, 8.0, 90),
            ("fused", 256, 2.0, 30), ("explicit", 512, None, None), ("fused", 512, 2.0, 30),
        )
    ],
    "compile": [
        {"model": "m", "eager_s": 2.0, "compiled_s": 1.0, "compile_s": 9.0, "low_ratio": 0.4,
         "ratio": 0.5, "high_ratio": 0.6, "problem": None},
        {"model": "n", "eager_s": 2.0, "compiled_s": None, "compile_s": None, "low_ratio": None,
         "ratio": None, "high_ratio": None, "problem": "there is no C++ compiler"},
    ],
    "ranks": [
        {"recipe": "x", "method": method, "library": library, "num_ranks": 2, "seconds": s,
         "held_bytes": size, "peak_bytes": 1, "sent_bytes": 1}
        for method, library, s, size in (
            ("ddp", "torch", 1.0, 160), ("zero1", "ours", 1.0, 100), ("zero3", "ours", 1.0, 80),
            ("fsdp", "ours", 1.2, 80), ("yafsdp", "ours", 1.0, 90),
        )
    ],
    "algorithms": [
        {"name": name, "num_trials": 5, "learning_rate": 1e-3, "target_loss": 2.0,
         "tokens": tokens, "num_reached": len(tokens), "num_seeds": 3, "step_s": 1.0,
         "tokens_per_step": 10}
        for name, tokens in (("AdamW as it comes", [100.0, 120.0, 140.0]),
                             ("AdamW, tuned", [80.0, 100.0, 90.0]), ("Muon, tuned", [45.0]))
    ],
}  # fmt: skip
EXPECTED = {
    "bf16_seconds": [4.0], "bf16_bytes": [1.6], "compiled_seconds": [2.0],
    "attention_seconds": [1.5, 4.0], "attention_bytes": [1.5, 3.0], "checkpointing_bytes": [4.0],
    "sharded_bytes": [1.6, 2.0], "yafsdp_seconds": [1.2], "tuned_tokens": [120 / 90],
    "muon_tokens": [2.0],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    run = RecordedRun("NVIDIA X", "cuda", "1", "2.13.0", "2026-11-24", "abc", ROWS)
    write_recorded(run, tmp_path)
    write_recorded(replace(run, device="CPU Y, one core", kind="cpu", experiments={}), tmp_path)
    return tmp_path


def test_the_rows_of_this_test_are_such_as_make_record_writes():
    for name, rows in ROWS.items():
        assert rows_problem(name, rows) == ""


@pytest.mark.parametrize("name", [name for name in READERS if name != "nothing"])
def test_each_reader_finds_the_factors(name):
    experiment, read = READERS[name]
    assert experiment in ROW_KEYS
    assert list(read(ROWS[experiment])) == pytest.approx(EXPECTED[name])
    assert list(read([])) == []
    for number in range(len(ROWS[experiment])):  # a row less is no error
        list(read(ROWS[experiment][:number]))


def test_every_reader_is_used_by_a_lever():
    assert {each.reader for each in levers()} == set(READERS)


def test_every_lever_has_a_source_a_date_and_no_recalled_figure():
    with (TABLES / "levers.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(levers()) > 15
    for lever in levers():
        assert lever.source and lever.read_on <= date(2026, 11, 25) and lever.status != "M"
        assert lever.sourced or lever.reader != "nothing"
        assert re.fullmatch(r"\d\d_\w+", lever.lesson)
        if lever.sourced and "measured" not in lever.source:
            place = r"20\d\d|arXiv \d{4}\.\d{5}|at [0-9a-f]{7}|README|utils/data"
            assert re.search(place, lever.source), lever.lever


def test_sourced_factors_follow_from_the_figures_in_their_sources():
    sourced = {(each.lever, each.divides): each.sourced for each in levers()}
    speedrun = "all of a speedrun's ideas, GPT-2 124M"
    spread = price_spread("H100 SXM", "on-demand", "2026-11-09")
    gcp, aws = ({row.kind: row.usd_per_gpu_hour for row in load_rental_prices()
                 if row.provider == provider and row.chip == chip and row.date.isoformat() == day}
                for provider, chip, day in (("GCP", "H100 SXM", "2026-09-26"),
                                            ("AWS", "H200", "2026-08-06")))  # fmt: skip
    expected = {
        (speedrun, "seconds"): (45 / 1.23, 45 / 1.23),
        (speedrun, "tokens"): (10e9 / 400e6, 10e9 / 400e6),
        ("all progress, GPT-2's quality, 2019 to 2026", "dollars"): (43_000 / 48, 43_000 / 48),
        ("FSDP instead of DeepSpeed", "seconds"): (3158.7 / 3094.5, 3158.7 / 3094.5),
        ("fp8 on top of bf16", "seconds"): (1.05, 8532 / 6667),
        ("YaFSDP instead of FSDP", "seconds"): (1 / (1 - 0.023), 1 / (1 - 0.266)),
        ("checkpointing, activations only", "bytes"): (1 / (1 - 0.7), 48 / 7),
        ("sharding (ZeRO-1 to 3), 64 GPUs", "bytes"): (16 / (4 + 12 / 64), 16 / (16 / 64)),
        ("more GPUs", "dollars"): (42 / 47, 42 / 47),
        ("where to rent, same chip, same day", "dollars"): (spread.high / spread.low,) * 2,
        ("spot instead of on-demand", "dollars"): (
            gcp["on-demand"] / gcp["spot"], aws["on-demand"] / aws["spot"],
        ),
    }  # fmt: skip
    for key, factors in expected.items():
        assert sourced[key] == pytest.approx(factors, rel=0.005), key


def test_rows_show_what_was_recorded_and_never_invent(folder):
    rows = {row[:2]: row for row in lever_rows(folder)}
    assert all(len(row) == len(LEVER_HEADERS) for row in rows.values())
    muon = rows["a better optimizer (Muon)", "tokens"]
    assert muon[3] == "1.5 to 2" and muon[4] == f"{MARK} 2 on NVIDIA X {MARK}"
    assert rows["fused attention", "seconds"][4] == f"{MARK} 1.5 to 4 on NVIDIA X {MARK}"
    assert rows["more GPUs", "dollars"][4] == f"{MARK} - {MARK}"
    assert rows["fused attention", "seconds"][2] == "-"
    empty = {row[:2]: row for row in lever_rows(folder / "nothing")}
    assert empty["compiling", "seconds"][4] == f"{MARK} not recorded yet {MARK}"
    compared = [[cell for cell in row if MARK not in cell] for row in rows.values()]
    assert compared == [[c for c in row if MARK not in c] for row in empty.values()]


def test_levers_are_in_the_order_of_what_they_divide_then_of_their_factor():
    keys = [(KINDS.index(each.divides), -(each.sourced_high or 0)) for each in levers()]
    assert keys == sorted(keys)
    assert {each.divides for each in levers()} == set(KINDS)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"divides": "watts"}, "divides is 'watts'"),
        ({"reader": "guess"}, "reader is 'guess'"),
        ({"status": "M"}, "status is 'M'"),
        ({"sourced_low": 9.0}, "sourced_low and sourced_high are no range: 9.0, 5.5"),
        ({"sourced_high": None}, "are no range: 1.5, None"),
        ({"claimed_low": -1.0}, "claimed_low is -1"),
    ],
)
def test_a_wrong_line_is_refused(changes, words):
    good = next(each for each in levers() if each.reader == "bf16_seconds")
    with pytest.raises(ValueError, match=re.escape(words)):
        Lever(**{**vars(good), **changes})


def test_the_figure_has_every_lever_and_each_kind_of_evidence(folder):
    figure = new_figure(8, 6)
    axes = figure.subplots()
    draw_levers(axes, folder)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == [f"{each.lever}: {each.divides}" for each in levers()]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == ["a recorded GPU", "sources", "the article"]
    assert len({line.get_marker() for line in axes.get_lines()}) >= 3
    assert png_of(figure)


def test_ranges_in_words():
    assert [range_text(each) for each in (None, (2.0, 2.0), (0.94, 6.0), (36.58, 36.58))] == [
        "-", "2", "0.94 to 6", "36.6",
    ]  # fmt: skip
    assert module.Range
