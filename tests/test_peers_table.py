"""The comparison table: what it divides by, and what it shows of systems that cannot run."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.measured import MARK
from utils.peers import TrainingJob
from utils.peers.harness import SystemBytes, SystemRun
from utils.peers.ours import zero_system
from utils.peers.recorded_runs import PeerRow, RecordedPeer
from utils.peers.table import (
    GAP_LIMITS,
    ComparisonRow,
    calls_text,
    compare,
    gap_text,
    print_comparison,
    recorded_rows,
    row_of,
)

JOB = TrainingJob(GPTConfig(2, 2, 16, 8, 32), batch_size=4, num_steps=3)
REASON = "It is not installed here."


class FlippedZero:
    """A system that trains with its gradients' signs turned round: equal bytes, other weights."""

    def __init__(self, model, rank, world_size, job):
        self.inner = zero_system(1)(model, rank, world_size, job)
        self.step, self.owned = self.inner.step, self.inner.owned
        self.whole_parameters = self.inner.whole_parameters

    def backward(self, tokens_BT, targets_BT, is_last):
        loss = self.inner.backward(tokens_BT, targets_BT, is_last)
        for parameter in self.inner.model.parameters():
            parameter.grad.neg_()
        return loss


@pytest.fixture(scope="module")
def rows():
    systems = {
        "stage 1": zero_system(1),
        "flipped": FlippedZero,
        "absent": REASON,
        "stage 3": zero_system(3),
    }
    return {row.name: row for row in compare(systems, 2, JOB)}


def test_rows_come_in_the_order_given(rows):
    assert list(rows) == ["stage 1", "flipped", "absent", "stage 3"]


def test_bytes_are_per_parameter_and_traffic_in_weights(rows):
    counters = 3 * 4 / count_parameters(JOB.config).total  # Adam's, of three units
    one, three = rows["stage 1"], rows["stage 3"]
    assert one.held == pytest.approx(
        {"parameters": 4, "gradients": 4, "optimizer state": 4 + counters}
    )
    assert three.held_per_parameter == pytest.approx(8 + counters)
    assert (one.sent_weights, three.sent_weights) == (1.0, 1.5)
    assert (one.textbook_weights, three.textbook_weights) == (1.0, 1.5)
    assert three.calls == {"send": 9, "recv": 9}
    assert one.peak_per_parameter > one.held_per_parameter and one.num_allocations > 50


def test_gaps_tell_a_system_that_trains_otherwise(rows):
    assert rows["stage 1"].loss_gap < GAP_LIMITS[0] > rows["stage 1"].parameter_gap
    assert rows["flipped"].loss_gap > 1e-3 < rows["flipped"].parameter_gap
    assert rows["flipped"].held == rows["stage 1"].held


def test_16_bit_weights_halve_the_unit_of_traffic():
    (row,) = compare({"stage 2": zero_system(2)}, 2, replace(JOB, low_precision=True))
    assert row.sent_weights == 1.0
    assert row.held["parameters"] == 2.0 and row.held["optimizer state"] == pytest.approx(6, 0.01)
    assert GAP_LIMITS[0] < row.loss_gap < GAP_LIMITS[2]


def test_the_worst_rank_counts():
    oracle = SystemRun((1.0, 1.0), [torch.zeros(4)], 0, {}, (1.0,))
    good = SystemRun((1.0, 1.0), [torch.zeros(4)], 8, {"send": 1}, (1.0, 1.0, 2.0), 8.0)
    bad = SystemRun((1.0, 1.5), [torch.tensor([0, 0, 0, 2.0])], 32, {"send": 1}, (1.0,), 16.0)
    sizes = [SystemBytes({"parameters": 16}, 20, 3), SystemBytes({"parameters": 8}, 40, 5)]
    for runs in ([good, bad], [bad, good]):
        row = row_of("x", runs, sizes, oracle, weight_bytes=4)
        assert (row.loss_gap, row.parameter_gap) == (0.5, 2.0)
        assert row.held == {"parameters": 4.0, "gradients": 0, "optimizer state": 0}
        assert (row.peak_per_parameter, row.num_allocations) == (10.0, 5)
        assert (row.sent_weights, row.textbook_weights, row.step_s) == (2.0, 1.0, 2.0)


def lines_of(capsys):
    return capsys.readouterr().out.splitlines()


def test_the_table_shows_every_row_and_why_one_did_not_run(rows, capsys):
    print_comparison(list(rows.values()), {"stage 1": (12, 1)}, "Four systems")
    caption, headers, one, _, absent, three, unit, why = lines_of(capsys)
    assert caption == "Four systems" and headers.count("formula") == 2
    assert one.startswith("stage 1 | < 1e-5 | < 1e-5 | 4.00 | 4.00 | 4.0")
    assert "| 12.00 | 1.00 | 1.00 | 1.00 | 6 send | " in one and one.endswith(MARK)
    assert set(absent.split(" | ")[1:]) == {"-"}
    assert three.count(" | - | ") == 2 and "9 send" in three  # no formula was given for it
    assert unit.startswith("Bytes held are per parameter")
    assert why == f"Not run here: absent. {REASON}"


def test_without_formulas_there_is_no_column_for_them(rows, capsys):
    print_comparison([rows["stage 1"]])
    assert "formula" not in capsys.readouterr().out


def test_systems_with_the_same_reason_share_a_sentence(capsys):
    print_comparison([ComparisonRow(name, problem=REASON) for name in ("a", "b")])
    assert lines_of(capsys)[-1] == f"Not run here: a, b. {REASON}"


RECORDED = RecordedPeer(
    "DeepSpeed", "0.1", "2.13.0", "a processor", "2026-11-24", JOB,
    tuple(
        PeerRow(
            "stage 1", ranks, low, 100, (1.0,), 1e-7,
            {"parameters": 400, "gradients": 200, "optimizer state": 450},
            2000, 600.0, 400.0, {"all_reduce": 25}, 0.05,
        )
        for ranks, low in ((2, False), (2, True), (4, False))
    ),
)  # fmt: skip


def test_a_recorded_run_fills_the_row_of_a_system_that_cannot_run(capsys):
    recorded = recorded_rows(RECORDED, 2)
    assert list(recorded) == ["DeepSpeed stage 1"]
    rows = compare({"DeepSpeed stage 1": REASON}, 2, JOB, recorded)
    assert rows[0].held_per_parameter == 10.5 and rows[0].sent_weights == 1.5
    assert math.isnan(rows[0].parameter_gap)
    print_comparison(rows)
    *_, row, _, why, when = lines_of(capsys)
    assert "10.50 | 1.50 | 1.00 | 25 all-reduce" in row
    assert why == f"Not run here: DeepSpeed stage 1. {REASON}"
    assert when == "Recorded: DeepSpeed 0.1, torch 2.13.0, a processor, 2026-11-24"


def test_recorded_rows_are_those_of_the_ranks_and_precision_asked_for():
    low = recorded_rows(RECORDED, 2, low_precision=True)["DeepSpeed stage 1"]
    assert (low.sent_weights, low.textbook_weights) == (3.0, 2.0)  # of weights half as large
    assert recorded_rows(RECORDED, 4, low_precision=True) == {}


def test_a_system_that_ran_does_not_take_a_recorded_row():
    stale = {"mine": ComparisonRow("mine", loss_gap=9.0, recorded="long ago")}
    (row,) = compare({"mine": partial(zero_system(1))}, 2, JOB, stale)
    assert row.loss_gap < 1 and row.recorded == ""


@pytest.mark.parametrize(
    ("gap", "text"),
    [(0.0, "< 1e-5"), (1e-5, "< 0.001"), (0.02, "< 0.03"), (0.5, "0.5"), (math.nan, "-"),
     (math.inf, "inf")],
)  # fmt: skip
def test_a_gap_is_shown_by_its_limit(gap, text):
    assert gap_text(gap) == text


def test_calls_count_a_message_once():
    assert calls_text({"send": 10, "recv": 10, "all_reduce": 1}) == "10 send, 1 all-reduce"
    assert calls_text({}) == "none"
