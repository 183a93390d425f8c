"""The rows of the price tables: RentalPrice, PurchasePrice, ElectricityPrice, TrainingRun.

How it works: one frozen dataclass per table of `utils/data`, with the table's columns as fields.
Every row has a source and a date, knows its age, and says in its label when it is older than a
year. A label depends on today: in a notebook, pass `today` or show it through `measured`.
Left out: reading the tables and calculating with them (utils.prices).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from numbers import Real

from utils.data import STATUS_WORDS, check_row

OLD_DAYS = 365
KINDS = ("on-demand", "spot", "marketplace", "reserved", "own")


class _Dated:
    """What every row with a `date` and a `status` can say of its age."""

    date: date
    status: str

    def age_days(self, today: date | None = None) -> int:
        """Days since the price was read; 0 for a date that is still to come."""
        return max(0, ((today or date.today()) - self.date).days)

    def is_old(self, today: date | None = None) -> bool:
        """Whether the price is older than a year."""
        return self.age_days(today) > OLD_DAYS

    def _dated(self, text: str, today: date | None) -> str:
        second_hand = "" if self.status == "R" else f", {STATUS_WORDS[self.status]}"
        old = " (older than a year)" if self.is_old(today) else ""
        return f"{text}, {self.date.isoformat()}{second_hand}{old}"


@dataclass(frozen=True)
class RentalPrice(_Dated):
    """The price of renting one GPU for one hour, as read on `date` at `source`."""

    date: date
    provider: str
    chip: str
    sku: str
    usd_per_gpu_hour: float
    kind: str
    source: str
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}.")

    @classmethod
    def own(cls, chip: str, usd: float, today: date | None = None) -> RentalPrice:
        """A price of your own, of today; it passes every filter of `price_spread`."""
        if not isinstance(usd, Real):
            raise ValueError(f"Your own price is {usd!r}; give dollars per GPU-hour as a number.")
        day = today or date.today()
        return cls(day, "your own price", chip, chip, float(usd), "own", "you", "own")

    def label(self, today: date | None = None) -> str:
        """E.g. "RunPod H100 SXM secure, on-demand, $3.99 per GPU-hour, 2026-11-09, second-hand"."""
        price = f"${self.usd_per_gpu_hour:,.2f} per GPU-hour"
        if self.kind == "own":
            return f"your own price for {self.chip}, {price}"
        return self._dated(f"{self.provider} {self.sku}, {self.kind}, {price}", today)


@dataclass(frozen=True)
class PurchasePrice(_Dated):
    """What one GPU costs to buy; in a server or on a baseboard of eight, an eighth of the whole."""

    date: date
    chip: str
    sku: str
    usd_per_gpu: float
    source: str
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)

    def label(self, today: date | None = None) -> str:
        """E.g. "H100 SXM, one SXM module, $31,250, 2025-03-03 (older than a year)"."""
        return self._dated(f"{self.chip}, {self.sku}, ${self.usd_per_gpu:,.0f}", today)


@dataclass(frozen=True)
class ElectricityPrice(_Dated):
    """What a kilowatt-hour costs a kind of customer."""

    date: date
    region: str
    customer: str
    usd_per_kwh: float
    source: str
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)

    def label(self, today: date | None = None) -> str:
        """E.g. "United States, commercial, 14.60 cents per kWh, 2026-04-26, second-hand"."""
        price = f"{100 * self.usd_per_kwh:.2f} cents per kWh"
        return self._dated(f"{self.region}, {self.customer}, {price}", today)


@dataclass(frozen=True)
class TrainingRun:
    """A published training run; None where its source gives no figure.

    `active_parameters` is what works on one token (fewer than all in a mixture of experts);
    `date` is the publication's, or the day of reading where it has none.
    """

    name: str = field(metadata={"column": "run"})
    parameters: float | None
    active_parameters: float | None
    tokens: float | None
    chip: str
    gpu_hours: float | None
    watts_per_gpu: float | None
    reported_flops: float | None
    date: date
    source: str
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)
