"""What a GPU costs: the dated price tables, rent against purchase, energy.

How it works: `load_...` reads a table of `utils/data` into rows (utils.price_rows, utils.hardware);
the rest is arithmetic on plain numbers. A price of your own, `RentalPrice.own(chip, usd)`, stands
wherever a row of the table can stand.
Left out: network, storage, taxes, staff, resale value, interest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from datetime import date, timedelta
from numbers import Real
from typing import NamedTuple

from utils.data import read_table
from utils.hardware import Chip, find_chip, load_chips
from utils.price_rows import (
    KINDS,
    OLD_DAYS,
    ElectricityPrice,
    PurchasePrice,
    RentalPrice,
    TrainingRun,
)

__all__ = [
    "Chip",
    "ElectricityPrice",
    "PriceSpread",
    "PurchasePrice",
    "RentalPrice",
    "TrainingRun",
    "break_even_hours",
    "energy_kwh",
    "find_chip",
    "find_training_run",
    "load_chips",
    "load_electricity_prices",
    "load_purchase_prices",
    "load_rental_prices",
    "load_training_runs",
    "price_spread",
    "rent_usd",
]


class PriceSpread(NamedTuple):
    """Lowest, median and highest price in dollars per GPU-hour, and their rows, cheapest first."""

    low: float
    median: float
    high: float
    rows: tuple[RentalPrice, ...]


def load_rental_prices() -> tuple[RentalPrice, ...]:
    """All rental prices, the newest first."""
    return read_table("rental_prices.csv", RentalPrice)


def load_purchase_prices() -> tuple[PurchasePrice, ...]:
    """All purchase prices, the newest first."""
    return read_table("purchase_prices.csv", PurchasePrice)


def load_electricity_prices() -> tuple[ElectricityPrice, ...]:
    """All electricity prices."""
    return read_table("electricity_prices.csv", ElectricityPrice)


def load_training_runs() -> tuple[TrainingRun, ...]:
    """All published training runs, the largest first."""
    return read_table("training_runs.csv", TrainingRun)


def find_training_run(name: str) -> TrainingRun:
    """The run of that name. Raises ValueError that lists the known ones."""
    runs = {run.name: run for run in load_training_runs()}
    if name not in runs:
        raise ValueError(f"There is no run {name!r}; the known ones are: {', '.join(runs)}.")
    return runs[name]


def price_spread(
    chip: str,
    kind: str | None = None,
    as_of: date | str | None = None,
    prices: Iterable[RentalPrice] | None = None,
) -> PriceSpread:
    """Lowest, median and highest rental price of a chip, with the rows behind them.

    `as_of` takes the prices read on that one day. Without it, each provider's product counts with
    its newest price, unless that is a year older than the newest of all. `prices` stands in for
    the table: `[*load_rental_prices(), RentalPrice.own("H100 SXM", 2.10)]`; an own price of the
    chip always counts. Raises ValueError for what the table does not have.
    """
    rows = tuple(load_rental_prices() if prices is None else prices)
    chips = dict.fromkeys(row.chip for row in rows)
    if chip not in chips:
        raise ValueError(f"No price of {chip!r}; there are prices of: {', '.join(chips)}.")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"There is no kind {kind!r}; choose one of {', '.join(KINDS)}.")
    day = date.fromisoformat(as_of) if isinstance(as_of, str) else as_of
    own = [row for row in rows if row.kind == "own"]
    chosen = [row for row in [*_listed(rows, kind, day), *own] if row.chip == chip]
    chosen.sort(key=lambda row: row.usd_per_gpu_hour)
    if not chosen:
        when = f" of {day.isoformat()}" if day else ""
        raise ValueError(f"The table has no {kind or 'rental'} price{when} for {chip}.")
    usd = [row.usd_per_gpu_hour for row in chosen]
    return PriceSpread(usd[0], statistics.median(usd), usd[-1], tuple(chosen))


def rent_usd(gpu_hours: float, usd_per_gpu_hour: float) -> float:
    """Dollars for renting that many GPU-hours."""
    _check(gpu_hours=gpu_hours, usd_per_gpu_hour=usd_per_gpu_hour)
    return gpu_hours * usd_per_gpu_hour


def energy_kwh(gpu_hours: float, watts: float, pue: float = 1.0) -> float:
    """Kilowatt-hours at `watts` per GPU; `pue` is the whole site's power over the machines' own."""
    _check(gpu_hours=gpu_hours, watts=watts)
    _check_pue(pue)
    return gpu_hours * watts / 1000 * pue


def break_even_hours(
    purchase_usd: float,
    rent_usd_per_hour: float,
    power_w: float,
    usd_per_kwh: float,
    utilisation: float = 1.0,
    overhead: float = 1.0,
) -> float:
    """Hours of use after which a bought GPU was cheaper than a rented one; inf if it never is.

    Rent is paid for hours of use only. The bought GPU is on all the time: it draws `power_w` (times
    `overhead`, the PUE) for 1 / `utilisation` hours per hour of use, the careful assumption for one
    that idles. Hours by the calendar: the result / `utilisation`.
    """
    _check(purchase_usd=purchase_usd, rent_usd_per_hour=rent_usd_per_hour)
    _check(power_w=power_w, usd_per_kwh=usd_per_kwh)
    _check(utilisation=utilisation)
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}; it must be above 0 and at most 1.")
    power_usd_per_hour = energy_kwh(1, power_w, overhead) * usd_per_kwh / utilisation
    saved_usd_per_hour = rent_usd_per_hour - power_usd_per_hour
    return purchase_usd / saved_usd_per_hour if saved_usd_per_hour > 0 else math.inf


def _listed(rows: Iterable[RentalPrice], kind: str | None, day: date | None) -> list[RentalPrice]:
    """The rows of one day, or each product's newest; without own prices."""
    listed = [row for row in rows if row.kind != "own"]
    listed = _newest(listed) if day is None else [row for row in listed if row.date == day]
    return [row for row in listed if kind in (None, row.kind)]


def _newest(rows: Iterable[RentalPrice]) -> list[RentalPrice]:
    newest: dict[tuple[str, str, str], RentalPrice] = {}
    for row in sorted(rows, key=lambda row: row.date):
        newest[row.provider, row.sku, row.kind] = row
    latest = max((row.date for row in newest.values()), default=date.min)
    return [row for row in newest.values() if latest - row.date <= timedelta(days=OLD_DAYS)]


def _check(**values: float) -> None:
    for name, value in values.items():
        if not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value!r}; it must be a number that is not below 0.")


def _check_pue(pue: float) -> None:
    _check(pue=pue)
    if pue < 1:
        raise ValueError(f"The overhead (PUE) is {pue}; it must be 1 or more.")
