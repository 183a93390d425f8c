"""Dollars of plans: own runs by electricity, recorded runs by rent, and what is missing as "-"."""

import pytest

from utils.experiments.plan_table import (
    HEADERS,
    batch_row,
    recorded_rows,
    tokens_per_s,
    usd_per_billion_tokens,
)
from utils.measured import MARK
from utils.prices import load_electricity_prices, price_spread
from utils.recorded import RecordedRun

ROW = {"attention": "fused", "plan": "full", "batch_size": 8, "num_tokens": 1024,
       "peak_bytes": 2**30, "seconds": 0.05, "flops": 10**12,
       "largest_batch": 90, "largest_batch_seconds": 0.5}  # fmt: skip
FAILED = {"attention": "fused", "plan": "none", "batch_size": 8, "num_tokens": 1024,
          "peak_bytes": None, "seconds": None, "flops": None,
          "largest_batch": 0, "largest_batch_seconds": None}  # fmt: skip


def run_on(device, *rows):
    return RecordedRun(
        device, "cuda", "1", "2.13.0", "2026-11-25", "abc", {"checkpointing": list(rows)}
    )


def test_a_priced_chip_by_hand():
    (row,) = recorded_rows([run_on("NVIDIA H100 80GB HBM3", ROW)])
    speed = 90 * 1024 / 0.5
    usd = price_spread("H100 SXM").median * 1e9 / speed / 3600
    assert row == ["NVIDIA H100 80GB HBM3", "fused", "full", "1,024", "0.05", "90",
                   f"{speed:,.0f}", f"{usd:,.2f}"]  # fmt: skip
    assert len(row) == len(HEADERS)


def test_what_was_not_measured_is_a_dash():
    (row,) = recorded_rows([run_on("NVIDIA H100 80GB HBM3", FAILED)])
    assert row[3:] == ["-"] * 5
    assert tokens_per_s(FAILED) is None


@pytest.mark.parametrize("device", ["AMD EPYC, one core", "NVIDIA H100 PCIe", "NVIDIA L4"])
def test_a_chip_without_a_price_gets_no_dollars(device):
    assert usd_per_billion_tokens(device, 1000.0) is None
    (row,) = recorded_rows([run_on(device, ROW)])
    assert row[-1] == "-" and row[-2] != "-"


def test_no_run_gives_no_row():
    assert recorded_rows([]) == []


def test_electricity_by_hand():
    price = load_electricity_prices()[0]
    speed, dollars = batch_row(1000.0, price)
    assert speed == f"{MARK} 1,000 {MARK}"
    kwh = 1e9 / 1000 / 3600 * 30 / 1000
    assert dollars == f"{MARK} ${kwh * price.usd_per_kwh:.2f} {MARK}"
