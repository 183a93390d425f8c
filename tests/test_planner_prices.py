"""What an hour costs: of the table, your own, with lost hours, bought."""

from dataclasses import replace

import pytest

from utils.planner import PlanRequest, main
from utils.planning.advice import helpful_changes
from utils.planning.hour_price import hour_price
from utils.prices import price_spread

SMALL = PlanRequest("gpt2-124m", 10e9, "H100 SXM", 8)


def test_prices_are_the_tables_own_or_bought():
    spread = price_spread("H100 SXM", "marketplace")
    market = hour_price(replace(SMALL, price="marketplace"))
    assert (market.usd, market.words[:11]) == (spread.median, "marketplace")
    spot = hour_price(replace(SMALL, price="spot"))
    assert spot.usd == pytest.approx(price_spread("H100 SXM", "spot").median / 0.9)
    assert "10% of the hours lost" in spot.words
    own = PlanRequest("gpt2-124m", 10e9, "H100 SXM", 8, usd_per_gpu_hour=2.5)
    assert hour_price(own).usd == 2.5
    bought = hour_price(replace(SMALL, price="bought"))
    electricity = 0.7 * 1.2 * 0.146
    assert bought.usd > electricity
    assert f"electricity for ${electricity:.2f} an hour" in bought.words
    assert bought.usd == pytest.approx(31_576 / (4 * 8766) + electricity, rel=0.1)


def test_an_own_price_with_spot_loses_hours():
    own = hour_price(replace(SMALL, price="spot", usd_per_gpu_hour=1.0))
    assert own.usd == pytest.approx(1 / 0.9)
    assert own.words == "spot, your price, 10% of the hours lost"
    unlisted = replace(SMALL, chip="A100 80GB", price="spot", usd_per_gpu_hour=0.5)
    assert hour_price(unlisted).usd == pytest.approx(0.5 / 0.9)


@pytest.mark.parametrize("kind", ["on-demand", "marketplace", "own"])
def test_an_own_price_stands_for_any_other_rent(kind):
    own = hour_price(replace(SMALL, price=kind, usd_per_gpu_hour=1.0))
    assert (own.usd, own.words) == (1.0, "your own price")


def test_an_own_price_does_not_go_with_bought():
    with pytest.raises(ValueError) as error:
        replace(SMALL, price="bought", usd_per_gpu_hour=1.0)
    assert str(error.value) == (
        "An hour of bought hardware is worked out from what it cost: leave out either price "
        "(--price) or usd_per_gpu_hour (--usd-per-gpu-hour)."
    )


def test_spot_that_costs_more_than_on_demand_says_so(capsys):
    for chip in ("H100 SXM", "H200"):
        hour = hour_price(replace(SMALL, chip=chip, price="spot"))
        median = price_spread(chip, "on-demand").median
        words = f": more than the on-demand median of ${median:,.2f}"
        assert hour.words.endswith(words) == (hour.usd > median), chip
    dear = replace(SMALL, price="spot", usd_per_gpu_hour=1e3)
    assert "more than the on-demand median of $" in hour_price(dear).words
    words = ["--model", "gpt2-124m", "--tokens", "1e9", "--no-advice", "--price", "spot"]
    assert main([*words, "--usd-per-gpu-hour", "1000"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "at $1,111 an hour (spot, your price, 10% of the hours lost: more than the" in first
    unlisted = replace(dear, chip="V100 32GB")
    assert hour_price(unlisted).words.endswith("lost")  # no on-demand price to compare with


@pytest.mark.parametrize("kind", ["own", "spot"])
def test_your_own_price_is_not_that_of_another_chip(kind):
    cheap = replace(SMALL, price=kind, usd_per_gpu_hour=100.0)
    changes = helpful_changes(cheap, None)
    assert changes
    assert {change.request.chip for change in changes} == {"H100 SXM"}
