"""What a GPU and an hour of work cost: a kind of the price table, your own price, or bought.

How it works: of a kind, the median of the table's newest prices. A spot hour costs more than it
says, for some are lost to interruptions. Bought hardware is written off evenly over its lifetime,
in use all the time, and draws electricity.

Left out: what a rented machine costs beside its GPUs, interest, staff, a machine that idles.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from utils.planning.request import PlanRequest
from utils.planning.texts import dollars, named
from utils.prices import (
    energy_kwh,
    load_electricity_prices,
    load_purchase_prices,
    price_spread,
)

HOURS_PER_YEAR = 8766
CUSTOMER = "commercial"  # whose electricity bought hardware pays


@dataclass(frozen=True)
class HourPrice:
    """Dollars for a GPU and an hour of work, and what they are."""

    usd: float
    words: str


def hour_price(request: PlanRequest) -> HourPrice:
    """Raises ValueError, with what to do, for a chip without such a price."""
    if request.price == "own":
        return HourPrice(request.usd_per_gpu_hour, "your own price")
    if request.price == "bought":
        return _bought(request)
    if request.price == "spot":
        return _spot(request)
    return _listed(request, request.price)


def _listed(request: PlanRequest, kind: str) -> HourPrice:
    """The median of the table's prices of a kind."""
    try:
        spread = price_spread(request.chip, kind)
    except ValueError as error:
        raise ValueError(
            f"There is no {kind} price of {request.chip}: give {named('usd_per_gpu_hour')}."
        ) from error
    count = len(spread.rows)
    return HourPrice(spread.median, f"{kind}, median of {count} price{'s' * (count > 1)}")


def _spot(request: PlanRequest) -> HourPrice:
    """Your own price or the table's, of which some hours are lost."""
    own_usd, lost = request.usd_per_gpu_hour, request.assumptions.spot_restart_share
    quoted = _listed(request, "spot") if own_usd is None else HourPrice(own_usd, "spot, your price")
    usd, words = quoted.usd / (1 - lost), f"{quoted.words}, {lost:.0%} of the hours lost"
    try:
        steady = _listed(request, "on-demand")
    except ValueError:  # nothing to compare with
        return HourPrice(usd, words)
    if usd > steady.usd:
        words += f": more than the on-demand median of {dollars(steady.usd)}"
    return HourPrice(usd, words)


def _bought(request: PlanRequest) -> HourPrice:
    """Written off over its lifetime, and its electricity."""
    chip, assumed = request.chip_row, request.assumptions
    prices = [row.usd_per_gpu for row in load_purchase_prices() if row.chip == chip.name]
    if not prices or chip.tdp_w is None:
        raise ValueError(
            f"There is no purchase price or power of {chip.name}: take the {named('price')} own "
            f"and give {named('usd_per_gpu_hour')}."
        )
    electricity = next(row for row in load_electricity_prices() if row.customer == CUSTOMER)
    power_usd = energy_kwh(1, chip.tdp_w, assumed.pue) * electricity.usd_per_kwh
    owned_usd = statistics.median(prices) / (assumed.lifetime_years * HOURS_PER_YEAR)
    words = (
        f"bought at ${statistics.median(prices):,.0f}, in use all of {assumed.lifetime_years:g} "
        f"years, and electricity for ${power_usd:.2f} an hour"
    )
    return HourPrice(owned_usd + power_usd, words)
