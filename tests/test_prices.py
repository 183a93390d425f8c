"""The tables against the reference figures, the arithmetic by hand, and damaged tables."""

import math
from datetime import date

import pytest

from utils.prices import (
    RentalPrice,
    break_even_hours,
    energy_kwh,
    find_chip,
    find_training_run,
    load_chips,
    load_electricity_prices,
    load_purchase_prices,
    load_rental_prices,
    load_training_runs,
    price_spread,
    rent_usd,
)

DAY = date(2026, 11, 23)  # when the tables were collected
LLAMA_2_HOURS = 1_720_320
LOADERS = (load_rental_prices, load_purchase_prices, load_electricity_prices, load_training_runs)


def test_every_row_has_a_source_a_date_and_a_known_chip():
    known = {chip.name for chip in load_chips()} | {"H100 (form not stated)"}
    for load in LOADERS:
        rows = load()
        assert rows and len(set(rows)) == len(rows)
        for row in rows:
            assert len(row.source) > 8 and date(2020, 1, 1) <= row.date <= DAY
            assert row.status in ("R", "R2") and getattr(row, "chip", "T4") in known
    names = [chip.name for chip in load_chips()]
    assert len(set(names)) == len(names)
    assert all(chip.source and chip.read_on == DAY for chip in load_chips())


@pytest.mark.parametrize(
    ("chip", "dtype", "tflops", "share_measured"),
    [
        ("A100 80GB", "bf16", 312, 0.869),
        ("H100 SXM", "bf16", 989, 0.803),
        ("B200", "bf16", 2250, 0.776),
    ],
)
def test_peak_and_measured_rates(chip, dtype, tflops, share_measured):
    row = find_chip(chip)
    assert row.peak_flops(dtype) == tflops * 1e12
    assert round(row.measured_bf16_tflops / tflops, 3) == share_measured


def test_peaks_are_dense_and_only_what_the_chip_has():
    assert find_chip("H200").bf16_tflops == 989  # 1979 is the sparse rate
    assert find_chip("RTX 4090").bf16_tflops / find_chip("RTX 4090").fp32_tflops == 2
    with pytest.raises(ValueError, match="no bf16 rate for V100 32GB; it has fp32, fp16"):
        find_chip("V100 32GB").peak_flops("bf16")
    with pytest.raises(ValueError, match="no fp32 rate for Sohu; it has none at all"):
        find_chip("Sohu").peak_flops("fp32")


def test_the_same_h100_cost_4_6_times_as_much_elsewhere_on_one_day():
    low, median, high, rows = price_spread("H100 SXM", as_of="2026-11-09")
    assert (low, high) == (2.69, 12.29) and round(high / low, 1) == 4.6
    assert median == pytest.approx((3.99 + 6.88) / 2)
    assert [row.provider for row in rows] == ["RunPod", "RunPod", "AWS", "Azure"]


def test_without_a_day_each_product_counts_once_with_its_newest_price():
    rows = price_spread("A100 80GB").rows
    assert len({(row.provider, row.sku, row.kind) for row in rows}) == len(rows)
    aws = [row.usd_per_gpu_hour for row in rows if row.provider == "AWS"]
    assert aws == [3.4309]  # the 5.12 of 2024 has a successor, the 1.81 of 2024 is too old
    assert {row.usd_per_gpu_hour for row in rows if row.provider == "vast.ai"} == {1.7043}
    spot = price_spread("H200", kind="spot")
    assert (spot.low, spot.high, len(spot.rows)) == (3.32, 3.32, 1)


def test_an_own_price_stands_wherever_a_row_can():
    own = RentalPrice.own("H100 SXM", 2, today=DAY)
    assert own.label(date(2030, 1, 1)) == "your own price for H100 SXM, $2.00 per GPU-hour"
    for filters in ({}, {"as_of": "2026-11-09"}, {"kind": "spot"}):
        spread = price_spread("H100 SXM", prices=[*load_rental_prices(), own], **filters)
        assert spread.low == 2 and spread.rows[0] is own
    assert price_spread("my chip", prices=[RentalPrice.own("my chip", 1.5)])[:3] == (1.5,) * 3


def test_llama_2_70b_at_the_prices_of_the_reference():
    run = find_training_run("Llama-2-70B")
    assert (run.gpu_hours, run.tokens, run.parameters) == (LLAMA_2_HOURS, 2e12, 70e9)
    millions = [round(rent_usd(run.gpu_hours, usd) / 1e6, 1) for usd in (1.39, 1.79, 2.79, 3.43)]
    assert millions == [2.4, 3.1, 4.8, 5.9]
    assert round(rent_usd(run.gpu_hours, 5.12) / 1e6, 1) == 8.8
    prices = {row.usd_per_gpu_hour for row in load_rental_prices() if row.chip == run.chip}
    assert {1.39, 1.79, 2.79, 3.4309, 5.12} <= prices
    flops = 6 * run.active_parameters * run.tokens
    assert flops == pytest.approx(8.4e23) and flops < 1e24
    peak = find_chip(run.chip).peak_flops("bf16")
    assert round(flops / (run.gpu_hours * 3600 * peak), 3) == 0.435


def test_llama_2_70b_energy():
    run = find_training_run("Llama-2-70B")
    kwh = energy_kwh(run.gpu_hours, run.watts_per_gpu)
    assert round(kwh / 1000) == 688
    assert round(kwh * 0.146, -3) == 100_000
    assert energy_kwh(10, 500, pue=1.2) == pytest.approx(6)


@pytest.mark.parametrize(
    ("name", "mfu"), [("Llama-3.1-405B", 0.346), ("DeepSeek-V3", 0.346), ("GPT-3 175B", 0.196)]
)
def test_whole_bill_utilisation_of_published_runs(name, mfu):
    run = find_training_run(name)
    flops = run.reported_flops or 6 * run.active_parameters * run.tokens
    hours = 2_664_000 if name == "DeepSeek-V3" else run.gpu_hours  # pre-training only
    chip = find_chip(run.chip)
    peak = chip.peak_flops("bf16" if chip.bf16_tflops else "fp16")
    assert flops / (hours * 3600 * peak) == pytest.approx(mfu, abs=0.002)


def test_speedrun_dollars():
    first, last = (find_training_run(f"modded-nanogpt record {n}") for n in (1, 89))
    assert first.gpu_hours == pytest.approx(8 * 45 / 60)
    assert last.gpu_hours == pytest.approx(8 * 1.23 / 60)
    assert rent_usd(first.gpu_hours, 3.99) == pytest.approx(23.94)
    assert round(rent_usd(last.gpu_hours, 3.99), 2) == 0.65


def test_power_is_a_small_part_of_rent():
    commercial = next(p for p in load_electricity_prices() if p.customer == "commercial")
    usd_per_hour = energy_kwh(1, find_chip("H100 SXM").tdp_w) * commercial.usd_per_kwh
    assert round(usd_per_hour, 3) == 0.102
    assert round(usd_per_hour / 3.99, 3) == 0.026


def test_break_even_before_and_after_power():
    hours = [round(break_even_hours(31_000, usd, 0, 0)) for usd in (6.88, 2.69)]
    assert hours == [4506, 11524]
    assert break_even_hours(31_000, 2.69, 700, 0.146) == pytest.approx(31_000 / (2.69 - 0.1022))
    half = break_even_hours(31_000, 2.69, 700, 0.146, utilisation=0.5, overhead=1.5)
    assert half == pytest.approx(31_000 / (2.69 - 2 * 1.5 * 0.1022))
    assert break_even_hours(1, 0.10, 700, 0.146) == math.inf
    assert break_even_hours(0, 2.69, 700, 0.146) == 0
    assert any(30_000 < row.usd_per_gpu < 32_000 for row in load_purchase_prices())


def test_a_price_says_its_age():
    row = next(row for row in load_rental_prices() if row.date == date(2025, 3, 17))
    assert (row.age_days(date(2026, 3, 17)), row.is_old(date(2026, 3, 17))) == (365, False)
    assert row.is_old(date(2026, 3, 18)) and row.age_days(date(2025, 1, 1)) == 0
    assert "older" not in row.label(date(2026, 3, 17))
    assert row.label(DAY).endswith("2025-03-17 (older than a year)")
    for rows in (load_rental_prices(), load_purchase_prices(), load_electricity_prices()):
        assert all(("second-hand" in r.label(DAY)) == (r.status == "R2") for r in rows)
