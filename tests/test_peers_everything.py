"""Everything beside the libraries: whole lines, equal training, and what is absent or fails."""

import math
import re
from dataclasses import replace

import pytest

from utils.measured import MARK
from utils.peers import SMALL, TrainingJob, contests, everything
from utils.peers.contests import CONTESTS, PROBLEMS, Contestant, by_recipe
from utils.peers.everything import compare_everything, loss_from_ours, print_everything
from utils.peers.ours import zero_system
from utils.peers.recorded_runs import read_peer

JOB = TrainingJob(replace(SMALL, num_layers=2, model_dim=32), batch_size=4, num_steps=3)
LIMITS = {"autocast, bf16": 5e-3, "fp16, scaled": 5e-3}  # of a loss; fp32 stays below 1e-5
ABSENT = "It is not installed (this is a test): what follows shows a recorded run instead."


@pytest.fixture(scope="module")
def lines():
    return compare_everything(2, JOB)


@pytest.fixture(scope="module")
def by_name(lines):
    return {line.contestant.name: line for line in lines}


def test_ours_come_first_and_beside_someone_elses():
    techniques = list(dict.fromkeys(each.technique for each in CONTESTS))
    assert len({each.name for each in CONTESTS}) == len(CONTESTS) and len(techniques) == 10
    for technique in techniques[1:]:
        mine, *others = (each for each in CONTESTS if each.technique == technique)
        assert mine.library == "ours" and any(each.library != "ours" for each in others)


def test_every_contestant_has_its_line(lines):
    assert [line.contestant for line in lines] == list(CONTESTS)
    for line in lines:
        assert line.num_ranks == (2 if line.contestant.is_spread else 1)
        is_absent = line.contestant.problem() is not None
        assert line.ran_here != is_absent
        if line.ran_here:
            row = line.row
            assert len(row.losses) == JOB.num_steps and row.held_per_parameter > 7
            assert row.peak_per_parameter > row.held_per_parameter
            assert row.step_s > 0
            assert (row.sent_weights > 0) == bool(row.calls) == line.contestant.is_spread


def test_all_train_as_one_process_does_and_as_ours(lines):
    for line in lines:
        if line.ran_here:
            limit = LIMITS.get(line.contestant.technique, 1e-5)
            assert line.row.loss_gap < limit, line.contestant.name
            assert not loss_from_ours(line, lines) >= 1e-5, line.contestant.name
            is_low = line.contestant.technique in LIMITS
            assert (line.row.loss_gap > 1e-6) == is_low


def test_what_each_technique_is_for_shows_in_its_bytes(by_name):
    peaks = {name: line.row.peak_per_parameter for name, line in by_name.items()}
    held = {name: line.row.held_per_parameter for name, line in by_name.items()}
    for name in peaks:
        if name.startswith(("autocast", "fp16", "checkpointing")):
            assert peaks[name] < 0.9 * peaks["plain step, torch"], name
    expected = {"DDP": 16, "ZeRO-1": 12, "ZeRO-2": 10, "ZeRO-3": 8, "FSDP": 8}
    for technique, num_bytes in expected.items():
        assert held[f"{technique}, ours"] == pytest.approx(num_bytes, rel=0.01)
    assert held["FSDP, torch"] == pytest.approx(8, rel=0.01)
    for technique in ("DDP", "autocast, bf16"):
        mine, theirs = f"{technique}, ours", f"{technique}, torch"
        assert (held[mine], peaks[mine]) == (held[theirs], peaks[theirs])


def test_bytes_traffic_and_calls_are_the_same_again(lines):
    names = ("fp16, scaled", "checkpointing", "ZeRO-3", "FSDP")
    for line in compare_everything(2, JOB, names):
        before = next(each for each in lines if each.contestant == line.contestant)
        for field in ("held", "peak_per_parameter", "sent_weights", "textbook_weights", "calls"):
            assert getattr(line.row, field) == getattr(before.row, field), line.contestant.name


def printed(lines, capsys):
    print_everything(lines)
    return capsys.readouterr().out.splitlines()


def test_the_table_shows_everyone_and_says_who_ran(lines, capsys):
    _, headers, *rows = printed(lines, capsys)
    shown, (unit, *accounts) = rows[: len(lines)], rows[len(lines) :]
    assert headers.count("|") == 12 and {row.count("|") for row in shown} == {12}
    assert shown[0].startswith("plain step | torch | 1 | < 1e-5 | < 1e-5 | - | 16.0")
    assert unit.startswith("Bytes are per parameter")
    assert [each.partition(":")[0] for each in accounts] == ["torch", "ours", "DeepSpeed", "YaFSDP"]
    assert all(each.count(MARK) == 2 and each.endswith(MARK) for each in accounts)
    assert "ran here (torch 2." in accounts[0]


@pytest.fixture
def absent(monkeypatch):
    """A machine without the libraries that may be absent."""
    for library in PROBLEMS:
        monkeypatch.setitem(contests.PROBLEMS, library, lambda: ABSENT)


def test_what_is_absent_shows_its_recorded_run_and_why(absent, capsys):
    job = TrainingJob()
    lines = compare_everything(2, job, ("ZeRO-2", "YaFSDP"))
    assert [line.ran_here for line in lines] == [True, False, True, False]
    for line, library in zip(lines[1::2], ("deepspeed", "yafsdp"), strict=True):
        assert line.row.recorded == read_peer(library).label and line.row.problem == ABSENT
        assert line.row.loss_gap < 1e-5 and math.isnan(line.row.parameter_gap)
        assert loss_from_ours(line, lines) < 1e-5 and line.row.held_per_parameter > 10
    *_, deepspeed, yafsdp = printed(lines, capsys)
    assert deepspeed.startswith(f"DeepSpeed: {MARK} {ABSENT} DeepSpeed 0.") and "torch" in deepspeed
    assert yafsdp.startswith(f"YaFSDP: {MARK} {ABSENT} YaFSDP commit")


@pytest.mark.skipif(PROBLEMS["DeepSpeed"]() is not None, reason="DeepSpeed is not installed")
def test_machines_with_and_without_deepspeed_print_what_compares_equal(monkeypatch, capsys):
    texts = []
    for problem in (None, ABSENT):
        monkeypatch.setitem(contests.PROBLEMS, "DeepSpeed", lambda problem=problem: problem)
        lines = compare_everything(2, TrainingJob(), ("ZeRO-3",))
        assert lines[1].ran_here == (problem is None)
        shown = "\n".join(printed(lines, capsys))
        texts.append(re.sub(f"{MARK}[^{MARK}]*{MARK}", "", shown))  # as notebooks are compared
    assert texts[0] == texts[1]


@pytest.mark.parametrize("other", [replace(JOB, num_steps=2), replace(TrainingJob(), seed=1)])
def test_a_recorded_run_of_something_else_is_not_shown(absent, other):
    line = compare_everything(2, other, ("ZeRO-1",))[1]
    assert not line.ran_here and not line.row.recorded and not line.row.held
    assert math.isnan(loss_from_ours(line, [line]))


def test_a_damaged_recording_costs_its_figures_only(absent, monkeypatch):
    def damaged(name):
        raise ValueError("deepspeed.json is not a recorded run")

    monkeypatch.setattr(everything, "read_peer", damaged)
    mine, theirs = compare_everything(2, TrainingJob(), ("ZeRO-1",))
    assert mine.ran_here and theirs.row.problem == ABSENT and not theirs.row.recorded


class Breaks:
    """A library that fails in its second step, on one rank while the other waits for it."""

    def __init__(self, model, rank, world_size, job):
        self.inner, self.rank, self.steps = zero_system(1)(model, rank, world_size, job), rank, 0
        self.backward, self.owned = self.inner.backward, self.inner.owned

    def step(self):
        self.steps += 1
        if self.steps == 2 and self.rank == 1:
            raise RuntimeError("no kernel for this shape")
        self.inner.step()


def test_what_fails_in_the_middle_loses_its_own_line_only(monkeypatch, capsys):
    makes = [by_recipe(method="ddp"), lambda ranks, precision: Breaks, by_recipe(method="ddp")]
    names = ("first", "second", "third")
    contests = [Contestant(*each, True) for each in zip(names, ["torch"] * 3, makes, strict=True)]
    monkeypatch.setattr(everything, "CONTESTS", contests)
    lines = compare_everything(2, JOB)
    assert [line.ran_here for line in lines] == [True, False, True]
    story = "rank 1 failed first: RuntimeError: no kernel for this shape"
    assert lines[1].row.problem == f"It failed here: {story}"
    _, _, _, row, *_, account = printed(lines, capsys)
    assert set(row.split(" | ")[3:-1]) == {"-"}
    assert "ran here (torch 2." in account and ". second: It failed here: rank 1" in account


def test_bf16_is_for_what_is_spread_over_ranks():
    techniques = ("plain step", "DDP", "ZeRO-2", "FSDP")
    lines = compare_everything(2, JOB, techniques, precision="bf16")
    by_name = {line.contestant.name: line.row for line in lines}
    assert by_name["plain step, torch"].loss_gap < 1e-6
    assert all(1e-6 < row.loss_gap < 5e-3 for row in list(by_name.values())[1:] if row.held)
    assert by_name["ZeRO-2, ours"].held["parameters"] == 2.0
    assert by_name["DDP, ours"].held["parameters"] == 4.0
    assert (by_name["ZeRO-2, ours"].sent_weights, by_name["DDP, ours"].sent_weights) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (dict(techniques=("fp8",)), "No technique is called 'fp8'; there are plain step, auto"),
        (dict(precision="fp16"), "precision must be fp32 or bf16, not 'fp16'"),
        (dict(num_ranks=3), "4 sequences do not divide into 3 ranks x 1 micro-batches"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(monkeypatch, call, sentence):
    monkeypatch.setattr(everything, "compare", None)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        compare_everything(job=JOB, **call)
