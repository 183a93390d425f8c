"""Dollars per useful FLOP by hand, the spread of one day, discounts, moves, and the figure."""

import statistics
from datetime import date

import pytest

from utils.hardware import find_chip
from utils.plots import new_figure
from utils.price_per_flop import (
    ASSUMED_SHARE,
    PRICED_HEADERS,
    SPOT_HEADERS,
    largest_move,
    peak_16_bit,
    price_per_flop,
    priced_rows,
    spot_discounts,
    spot_rows,
    usd_per_eflop,
    useful_share,
    widest_day,
)
from utils.price_plots import draw_price_spread, show_price_spread
from utils.prices import RentalPrice, load_rental_prices, price_spread

DAY = date(2026, 11, 9)


def test_dollars_per_eflop_by_hand():
    """1e18 FLOPs at 1e15 FLOP/s are 1,000 s; at $3.60 an hour, $1."""
    assert usd_per_eflop(3.60, 1e15) == pytest.approx(1)
    assert usd_per_eflop(0, 1e15) == 0
    h100 = next(each for each in price_per_flop(DAY) if each.price.usd_per_gpu_hour == 2.69)
    assert h100.usd_per_eflop == pytest.approx(2.69 / 3600 * 1e18 / 794.5e12)
    assert h100.share == pytest.approx(0.803, abs=5e-4) and h100.share_is == "measured"


def test_the_share_is_measured_assumed_or_given():
    assert useful_share(find_chip("A100 80GB")) == (271.2 / 312, "measured")
    assert useful_share(find_chip("RTX 4090")) == (ASSUMED_SHARE, "assumed")
    assert useful_share(find_chip("A100 80GB"), 0.4) == (0.4, "given")
    shares = [useful_share(find_chip(name))[0] for name in ("A100 80GB", "H100 SXM")]
    assert min(shares) <= 0.81 and ASSUMED_SHARE == pytest.approx(statistics.mean(shares), abs=0.05)
    assert peak_16_bit(find_chip("T4")) == 65e12
    for share in (0, -1, 1.01):
        with pytest.raises(ValueError, match="it must be above 0 and at most 1"):
            price_per_flop(share=share)


def test_every_current_price_of_a_chip_with_a_rate_is_ranked_once():
    priced = price_per_flop()
    usd = [each.usd_per_eflop for each in priced]
    assert usd == sorted(usd)
    rows = [each.price for each in priced]
    assert len(set(rows)) == len(rows)
    for name in ("H100 SXM", "A100 80GB", "RTX 3090"):
        assert {row for row in rows if row.chip == name} == set(price_spread(name).rows)
    assert not {"H100 (form not stated)", "B300", "TPU v5e"} & {row.chip for row in rows}
    assert {row.chip for row in load_rental_prices()} >= {"H100 (form not stated)", "B300"}
    then = price_per_flop(as_of="2025-03-03")
    assert {each.chip.name for each in then} == {"TPU v4", "TPU v5e", "TPU v6e"}
    assert {each.price.kind for each in price_per_flop(kind="spot")} == {"spot"}


def test_a_given_share_scales_all_prices_alike():
    half, full = price_per_flop(DAY, share=0.5), price_per_flop(DAY, share=1.0)
    assert [each.price for each in half] == [each.price for each in full]
    for one, other in zip(half, full, strict=True):
        assert one.usd_per_eflop == pytest.approx(2 * other.usd_per_eflop)


def test_an_own_price_is_ranked_with_the_others():
    own = RentalPrice.own("H100 SXM", 0.10)
    cheapest = price_per_flop(prices=[*load_rental_prices(), own])[0]
    assert cheapest.price is own and cheapest.share_is == "measured"
    with pytest.raises(ValueError, match="no such price of a chip with a 16-bit rate"):
        price_per_flop(prices=[RentalPrice.own("my chip", 1.0)])
    with pytest.raises(ValueError, match="no such price"):
        price_per_flop(as_of="2020-01-01")


def test_one_chip_on_one_day_is_spread_4_6_times():
    spread = widest_day("H100 SXM")
    assert (spread.day, spread.low, spread.high) == (DAY, 2.69, 12.29)
    assert round(spread.ratio, 1) == 4.6 and len(spread.rows) == 4
    days = {row.date for row in load_rental_prices() if row.chip == "H100 SXM"}
    for day in days:
        usd = [
            row.usd_per_gpu_hour for row in load_rental_prices()
            if (row.chip, row.date, row.kind) == ("H100 SXM", day, "on-demand")
        ]  # fmt: skip
        assert not usd or max(usd) / min(usd) <= spread.ratio
    with pytest.raises(ValueError, match="No price of 'H101'"):
        widest_day("H101")
    with pytest.raises(ValueError, match="no spot price"):
        widest_day("RTX 4090", "spot")


def test_spot_discounts_are_those_of_the_reference():
    """Facts 4.3: GCP's H100 40 % less, AWS's H200 58 % less."""
    changes = {(m.first.provider, m.first.chip): m.change for m in spot_discounts()}
    assert {key: round(change, 2) for key, change in changes.items()} == {
        ("GCP", "H100 SXM"): -0.40, ("AWS", "H200"): -0.58,
    }  # fmt: skip
    assert all(len(row) == len(SPOT_HEADERS) for row in spot_rows())
    assert [row[5] for row in spot_rows()] == ["40%", "58%"]


def test_a_price_rose_by_half_in_a_day():
    move = largest_move()
    assert (move.first.provider, move.first.chip) == ("vast.ai", "A100 80GB")
    assert (move.second.date - move.first.date).days == 1
    assert f"{move.change:.1%}" == "49.8%"
    with pytest.raises(ValueError, match="read twice within 0 days"):
        largest_move(0)


def test_rows_and_bad_input():
    rows = priced_rows(price_per_flop(DAY))
    assert all(len(row) == len(PRICED_HEADERS) for row in rows)
    assert ("RunPod", "H100 SXM community", "2026-11-09", "on-demand", "2.69") == rows[1][:5]
    assert rows[1][5:] == ("80%, measured", "0.94")
    for usd, rate in ((-1, 1e15), (1, 0)):
        with pytest.raises(ValueError, match="needs a price that is not below 0 and a rate above"):
            usd_per_eflop(usd, rate)


def test_the_figure_shows_every_price():
    figure = new_figure(8.6, 3.6)
    reading = draw_price_spread(figure)
    one_day, by_flop = figure.axes
    assert [bar.get_width() for bar in one_day.patches] == [2.69, 3.99, 6.88, 12.29]
    drawn = sorted(x for line in by_flop.lines for x in line.get_xdata())
    priced = price_per_flop()
    assert drawn == pytest.approx([each.usd_per_eflop for each in priced])
    hollow = [line for line in by_flop.lines if line.get_markerfacecolor() == "white"]
    shown = sum(len(line.get_xdata()) for line in hollow)
    assert shown == sum(each.share_is == "assumed" for each in priced) > 0
    assert reading.startswith(
        "On 2026-11-09 an hour of H100 SXM cost from $2.69 to $12.29, 4.6 times as much"
    )
    assert f"from ${priced[0].usd_per_eflop:.2f} (OpenRelay, RTX 4090, assumed share)" in reading


def test_show_prints_the_reading(capsys):
    show_price_spread("A100 80GB", share=0.4)
    assert "Reading: On 2026-11-09 an hour of A100 80GB cost from $1.39" in capsys.readouterr().out
