"""The real YaFSDP: run where it can be imported, and its recorded run everywhere else.

To run it here, put a checkout of its source on the path (the README says which commit).
"""

import dataclasses
import importlib.util

import pytest

from utils.costs import count_parameters
from utils.measured import MARK
from utils.peers import SMALL, TrainingJob, real_beside, real_yafsdp, recorded_runs
from utils.peers.harness import largest_gap, measure_system, one_process, train_system
from utils.peers.real_beside import buffers_in_blocks, print_beside, real_yafsdp_rows
from utils.peers.real_yafsdp import real_yafsdp_system, yafsdp_problem
from utils.peers.recorded_runs import read_peer, record_yafsdp
from utils.peers.table import recorded_rows
from utils.ranks import run_ranks

NUM_PARAMETERS = count_parameters(SMALL).total
BLOCKS = SMALL.num_layers * count_parameters(SMALL).block / NUM_PARAMETERS
JOB = TrainingJob(num_steps=3)
is_here = importlib.util.find_spec("ya_fsdp") is not None
real = pytest.mark.skipif(not is_here, reason="the real YaFSDP is not installed")
MODES = {"ZeRO-3": True, "ZeRO-2": False}


@pytest.fixture
def absent(monkeypatch):
    """A machine without the real one."""
    monkeypatch.setattr(real_yafsdp.importlib.util, "find_spec", lambda name: None)


def test_without_it_there_is_a_sentence_that_says_what_to_do(absent):
    sentence = yafsdp_problem()
    assert "not installed" in sentence and "README" in sentence and sentence.endswith(".")
    assert sentence.count(". ") == 0


def test_without_it_nothing_can_be_recorded(absent):
    with pytest.raises(RuntimeError, match=r"^YaFSDP is not installed here: the README says"):
        record_yafsdp(JOB)


def test_the_recorded_run_is_whole_and_keeps_its_promises():
    recorded = read_peer("yafsdp")
    assert recorded.job == TrainingJob() and recorded.version == "commit 669fc36 of 2026-08-12"
    keys = {(row.setting, row.world_size, row.low_precision) for row in recorded.rows}
    assert keys == {(m, n, low) for m in MODES for n in (2, 4) for low in (False, True)}
    oracle = one_process(recorded.job)
    for row in recorded.rows:
        assert row.num_parameters == NUM_PARAMETERS
        gap = max(abs(a - b) for a, b in zip(row.losses, oracle.losses, strict=True))
        assert gap == pytest.approx(row.loss_gap, abs=1e-5)
        assert gap < (5e-3 if row.low_precision else 1e-5)


@pytest.mark.parametrize("num_ranks", (2, 4))
def test_the_recorded_run_has_two_weight_buffers_and_one_for_gradients(num_ranks):
    rows = recorded_rows(read_peer("yafsdp"), num_ranks)
    three = rows["YaFSDP ZeRO-3"]
    assert buffers_in_blocks(three, num_ranks, SMALL) == pytest.approx(3, abs=0.03)
    # Textbook, in (N - 1)/N of the weights: gathers, one reduction; two blocks stay for backward
    # or, as the last users of both buffers, a block and the head.
    factor = (num_ranks - 1) / num_ranks
    assert 2 * factor < three.textbook_weights < (2 + BLOCKS) * factor
    assert rows["YaFSDP ZeRO-2"].textbook_weights == pytest.approx(2 * factor, rel=0.01)


def test_without_it_the_recorded_rows_are_shown_with_their_date(absent):
    rows, source = real_yafsdp_rows(2)
    assert [row.name for row in rows] == ["YaFSDP ZeRO-3", "YaFSDP ZeRO-2"]
    recorded = read_peer("yafsdp")
    assert recorded.date in source and "669fc36" in source and source.startswith("not installed")


def test_machines_with_and_without_it_print_what_compares_equal(monkeypatch, capsys):
    """Every cell of the real rows stands between marks, and so does the line on their origin."""
    rows = list(recorded_rows(read_peer("yafsdp"), 2).values())
    ours = [dataclasses.replace(rows[0], name="ours")]
    for origin in ("run here", "recorded"):
        faked = ([dataclasses.replace(row, loss_gap=7.0) for row in rows], origin)
        monkeypatch.setattr(real_beside, "real_yafsdp_rows", lambda n, faked=faked: faked)
        print_beside(ours, 2)
    printed = capsys.readouterr().out.splitlines()
    for line in printed:
        if line.startswith("YaFSDP"):
            _, *cells = line.split(" | ")
            assert all(cell.startswith(MARK) and cell.endswith(MARK) for cell in cells)
        if line.startswith("The real one:"):
            assert line.count(MARK) == 2 and line.endswith(MARK)
    mine = next(line for line in printed if line.startswith("ours"))
    assert mine.count(MARK) == 2  # the step's time only


@real
@pytest.mark.filterwarnings("ignore:4 ranks on")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_ranks", (2, 4))
def test_the_real_one_trains_as_one_process_does(mode, num_ranks):
    system = real_yafsdp_system(reshard_after_forward=MODES[mode])
    runs = run_ranks(train_system, num_ranks, system, JOB, quiet=True)
    for run in runs:
        loss, parameter = largest_gap(run, one_process(JOB, num_ranks))
        assert loss < 1e-5 and parameter < 1e-4


@real
@pytest.mark.parametrize("mode", MODES)
def test_the_real_one_does_what_was_recorded(mode):
    (row,) = (r for r in read_peer("yafsdp").rows
              if (r.setting, r.world_size, r.low_precision) == (mode, 2, False))  # fmt: skip
    system = real_yafsdp_system(reshard_after_forward=MODES[mode])
    run = run_ranks(train_system, 2, system, JOB)[0]
    size = max(run_ranks(measure_system, 2, system, JOB), key=lambda each: each.held_bytes)
    assert run.calls == row.calls and run.textbook_bytes == pytest.approx(row.textbook_bytes)
    assert size.held == row.held


@real
def test_where_it_is_its_rows_are_run(capsys):
    rows, source = real_yafsdp_rows(2)
    assert source.startswith("run here") and not any(row.problem for row in rows)
    assert all(row.loss_gap < 1e-5 for row in rows)


def test_recording_runs_both_modes_on_all_ranks_in_both_formats(monkeypatch):
    asked = []
    monkeypatch.setattr(recorded_runs, "yafsdp_problem", lambda: None)
    monkeypatch.setattr(
        recorded_runs, "peer_row",
        lambda name, system, n, job: asked.append((name, system.keywords, n, job.low_precision)),
    )  # fmt: skip
    recorded = record_yafsdp(JOB, (2,))
    assert recorded.library == "YaFSDP" and recorded.version.startswith("commit 669fc36")
    assert asked == [
        (name, {"reshard_after_forward": frees}, 2, low)
        for low in (False, True) for name, frees in MODES.items()
    ]  # fmt: skip
