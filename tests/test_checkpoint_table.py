"""Tables about full checkpointing: arithmetic by hand, and holes in recorded runs."""

from dataclasses import replace

import pytest

from utils.checkpoint_table import (
    CITED,
    CITED_HEADERS,
    RECORDED_HEADERS,
    RENT_HEADERS,
    SAVED_HEADERS,
    plain_and_full,
    recorded_rows,
    rent_row,
    saved_row,
)
from utils.config import PRESETS, GPTConfig
from utils.costs import training_flops
from utils.predict_checkpoint import predict_checkpointed_step
from utils.prices import find_chip, price_spread
from utils.recorded import RecordedRun


def test_cited_rows_have_a_source():
    assert all(len(row) == len(CITED_HEADERS) and row[-1] for row in CITED)


def test_laptop_deep_saves_more_than_80_percent_of_a_whole_step():
    """The course's claim about full checkpointing."""
    deep = replace(PRESETS["laptop-deep"], attention="explicit")
    name, plain, full, saved = saved_row("deep", deep, 16)
    by_plan = [predict_checkpointed_step(deep, 16, p).peak_bytes for p in plain_and_full(deep)]
    assert (name, [plain, full], len(SAVED_HEADERS)) == ("deep", by_plan, 4)
    assert 1 - full / plain > 0.8
    assert saved == f"{100 * (1 - full / plain):.1f}%"


def test_rent_by_hand():
    config, chip = PRESETS["gpt2-1.5b"], find_chip("A100 80GB")
    name, hour, plain_fits, plain_usd, full_fits, full_usd = rent_row("A100 80GB", config)
    price = price_spread("A100 80GB", kind="on-demand").rows[0]
    assert name == "A100 80GB" and hour.startswith(f"{price.usd_per_gpu_hour:.2f} (")
    assert len(RENT_HEADERS) == 6
    seconds = 1e6 * training_flops(config, 1, 1024) / 1024 / (0.4 * chip.tf32_tflops * 1e12)
    assert float(plain_usd[1:]) == pytest.approx(seconds / 3600 * price.usd_per_gpu_hour, abs=5e-5)
    assert 1.2 < float(full_usd[1:]) / float(plain_usd[1:]) < 4 / 3
    for fits, plan in zip((plain_fits, full_fits), plain_and_full(config), strict=True):
        sizes = [predict_checkpointed_step(config, b, plan).peak_bytes for b in (fits, fits + 1)]
        assert sizes[0] <= 80e9 < sizes[1]


def test_a_chip_that_holds_no_sequence_has_no_price_of_tokens():
    assert rent_row("RTX 4090", PRESETS["gpt2-1.5b"])[2:] == (0, "-", 0, "-")


def run_with(*rows):
    return RecordedRun("a chip", "cuda", "1", "2.13", "2026-11-24", "abc", {"checkpointing": rows})


def row(plan, attention="fused", peak_bytes=100, flops=100, seconds=1.0):
    return {"plan": plan, "attention": attention, "peak_bytes": peak_bytes, "flops": flops,
            "seconds": seconds}  # fmt: skip


def test_recorded_rows_compare_full_with_none():
    run = run_with(row("none"), row("selective"), row("full", "fused", 40, 125, 1.2))
    (found,) = recorded_rows([run])
    assert found == ("a chip, torch 2.13, 2026-11-24", "fused", "-60%", "+25%", "+20%")
    assert len(found) == len(RECORDED_HEADERS)


def test_recorded_runs_with_holes():
    ran_out = row("none", "explicit", None, None, None)
    runs = [run_with(ran_out, row("full", "explicit")), run_with(row("full")), run_with()]
    assert [found[2:] for found in recorded_rows(runs)] == [("-", "-", "-")]


def test_plans():
    assert plain_and_full(GPTConfig(2, 2, 16, 8, 64)) == ((0, 1), ((0,), (1,)))
