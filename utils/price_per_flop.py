"""What useful FLOPs cost: every price of the dated table over what its chip gets done in an hour.

How it works: dollars per GPU-hour over FLOPs per GPU-hour, in dollars per EFLOP (1e18 FLOPs). A
chip gets done a share of its 16-bit peak: the best measured matrix product where the table of chips
has one, otherwise `ASSUMED_SHARE`, or the share that you give, e.g. your MFU. Every result says
which of the three it is.
Left out: memory, links between GPUs, hosts, interruptions; a cheap FLOP that cannot reach the next
GPU trains no large model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from utils.hardware import Chip, load_chips
from utils.prices import RentalPrice, load_rental_prices, price_spread

ASSUMED_SHARE = 0.8  # near the measured shares of A100 and H100, which are 0.87 and 0.80
EFLOP = 1e18
PRICED_HEADERS = (
    "provider",
    "what",
    "read on",
    "kind",
    "$ per hour",
    "share of peak",
    "$ per EFLOP",
)
SPOT_HEADERS = ("provider", "what", "read on", "on demand", "spot", "discount")


@dataclass(frozen=True)
class PricedFlops:
    """A price, what share of the chip's 16-bit peak is useful, and dollars per EFLOP."""

    price: RentalPrice
    chip: Chip
    share: float
    share_is: str  # measured, assumed or given

    @property
    def usd_per_eflop(self) -> float:
        """Dollars per 1e18 useful FLOPs."""
        return usd_per_eflop(self.price.usd_per_gpu_hour, self.share * peak_16_bit(self.chip))


class DaySpread(NamedTuple):
    """One chip's prices on one day, cheapest first."""

    day: date
    low: float
    high: float
    ratio: float
    rows: tuple[RentalPrice, ...]


class Move(NamedTuple):
    """One product's price on two days; `change` is a fraction of the first price."""

    first: RentalPrice
    second: RentalPrice
    change: float


def usd_per_eflop(usd_per_gpu_hour: float, flops_per_s: float) -> float:
    """Dollars per 1e18 FLOPs of a GPU that does so many in a second."""
    if usd_per_gpu_hour < 0 or flops_per_s <= 0:
        raise ValueError(
            "A price per FLOP needs a price that is not below 0 and a rate above 0, not "
            f"{usd_per_gpu_hour} and {flops_per_s}."
        )
    return usd_per_gpu_hour * EFLOP / (flops_per_s * 3600)


def peak_16_bit(chip: Chip) -> float:
    """The chip's bf16 peak in FLOP/s, or fp16's where it has only that."""
    return chip.peak_flops("bf16" if chip.bf16_tflops else "fp16")


def useful_share(chip: Chip, share: float | None = None) -> tuple[float, str]:
    """The share of the peak that is useful, and whether it is measured, assumed or given."""
    if share is not None:
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}; it must be above 0 and at most 1.")
        return share, "given"
    if chip.measured_bf16_tflops and chip.bf16_tflops:
        return chip.measured_bf16_tflops / chip.bf16_tflops, "measured"
    return ASSUMED_SHARE, "assumed"


def price_per_flop(
    as_of: date | str | None = None,
    kind: str | None = None,
    share: float | None = None,
    prices: Iterable[RentalPrice] | None = None,
) -> tuple[PricedFlops, ...]:
    """Every price of `price_spread` for every chip with a 16-bit rate, the cheapest FLOP first.

    Prices of no single chip ("H100 (form not stated)") and of chips without a 16-bit rate are left
    out. Raises ValueError where nothing is left, or for a share outside of (0, 1].
    """
    rows = tuple(load_rental_prices() if prices is None else prices)
    chips = {chip.name: chip for chip in load_chips() if chip.bf16_tflops or chip.fp16_tflops}
    priced = [
        PricedFlops(price, chips[name], *useful_share(chips[name], share))
        for name in dict.fromkeys(row.chip for row in rows)
        if name in chips
        for price in _prices_of(name, kind, as_of, rows)
    ]
    if not priced:
        raise ValueError("The table has no such price of a chip with a 16-bit rate.")
    return tuple(sorted(priced, key=lambda each: each.usd_per_eflop))


def priced_rows(priced: Sequence[PricedFlops]) -> list[tuple[object, ...]]:
    """A row under PRICED_HEADERS for each."""
    return [
        (
            each.price.provider, each.price.sku, each.price.date.isoformat(), each.price.kind,
            f"{each.price.usd_per_gpu_hour:.2f}", f"{each.share:.0%}, {each.share_is}",
            f"{each.usd_per_eflop:.2f}",
        )
        for each in priced
    ]  # fmt: skip


def widest_day(chip: str = "H100 SXM", kind: str | None = "on-demand") -> DaySpread:
    """The day on which this chip's highest price was the largest multiple of its lowest."""
    days = dict.fromkeys(row.date for row in load_rental_prices() if row.chip == chip)
    spreads = [price_spread(chip, kind, day) for day in days if _prices_of(chip, kind, day, None)]
    if not spreads:
        price_spread(chip, kind)  # says what is wrong
        raise ValueError(f"The table has no day with a {kind or 'rental'} price of {chip}.")
    each = max(spreads, key=lambda spread: spread.high / spread.low)
    return DaySpread(each.rows[0].date, each.low, each.high, each.high / each.low, each.rows)


def spot_discounts() -> tuple[Move, ...]:
    """Products with an on-demand and a spot price of the same day: `change` is below 0."""
    rows = load_rental_prices()
    spot = {(r.provider, r.sku, r.chip, r.date): r for r in rows if r.kind == "spot"}
    pairs = [
        (row, spot[row.provider, row.sku, row.chip, row.date])
        for row in rows
        if row.kind == "on-demand" and (row.provider, row.sku, row.chip, row.date) in spot
    ]
    return tuple(_move(*pair) for pair in pairs)


def spot_rows() -> list[tuple[str, ...]]:
    """A row under SPOT_HEADERS for each product with both prices."""
    return [
        (
            first.provider, first.sku, first.date.isoformat(), f"{first.usd_per_gpu_hour:.2f}",
            f"{second.usd_per_gpu_hour:.2f}", f"{-change:.0%}",
        )
        for first, second, change in spot_discounts()
    ]  # fmt: skip


def largest_move(within_days: int = 1) -> Move:
    """The largest rise or fall of one product's price between two readings so close together."""
    rows = sorted(load_rental_prices(), key=lambda row: row.date)
    moves = [
        _move(first, second)
        for place, first in enumerate(rows)
        for second in rows[place + 1 :]
        if (first.provider, first.sku, first.kind) == (second.provider, second.sku, second.kind)
        and 0 < (second.date - first.date).days <= within_days
    ]
    if not moves:
        raise ValueError(f"No product was read twice within {within_days} days.")
    return max(moves, key=lambda move: abs(move.change))


def _move(first: RentalPrice, second: RentalPrice) -> Move:
    return Move(first, second, second.usd_per_gpu_hour / first.usd_per_gpu_hour - 1)


def _prices_of(
    chip: str,
    kind: str | None,
    as_of: date | str | None,
    prices: Iterable[RentalPrice] | None,
) -> tuple[RentalPrice, ...]:
    """The chip's prices, or none where the table has none of this kind or day."""
    try:
        return price_spread(chip, kind, as_of, prices).rows
    except ValueError:
        return ()
