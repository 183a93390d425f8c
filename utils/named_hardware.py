"""The hardware that the article names: when it was announced, what it is for, who can have it.

How it works: one frozen `NamedHardware` per line of `utils/data/named_hardware.csv`; its figures
are those of the same chip in `chips.csv` (utils.hardware), so that no figure stands in two tables.
A figure that no public source gives stays unknown and is shown as such.
Left out: prices (utils.prices), and hardware that the article does not name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from utils.data import check_row, read_table
from utils.hardware import Chip, find_chip
from utils.measured import significant

ARTICLE_DATE = date(2024, 8, 18)  # of the first copies of the text (facts' search results)
USES = ("trains and serves", "serves", "market")
UNKNOWN = "no public datasheet"
NAMED_HEADERS = (
    "what", "maker", "announced or in use", "for", "can one have it?", "GB", "TB/s",
    "16-bit TFLOP/s", "source status",
)  # fmt: skip


@dataclass(frozen=True)
class NamedHardware:
    """A chip, or a market of chips, as known on `read_on`; `chip` is its name in chips.csv."""

    name: str
    maker: str
    announced: date | None
    use: str
    access: str
    chip: str | None
    source: str
    read_on: date
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)
        if self.use not in USES:
            raise ValueError(f"use is {self.use!r}; it must be one of {', '.join(USES)}.")
        if self.use != "market" and self.announced is None:
            raise ValueError(f"{self.name} has no date; a chip needs the day of its announcement.")
        figures = self.figures
        if figures and (figures.use == "serves") != (self.use == "serves"):
            raise ValueError(f"{self.name} {self.use}, but chips.csv says that it {figures.use}.")

    @property
    def figures(self) -> Chip | None:
        """The chip's row in the table of chips; None where no figures are public."""
        return find_chip(self.chip) if self.chip else None

    @property
    def after_article(self) -> bool:
        """Whether it was announced only after the article appeared."""
        return self.announced is not None and self.announced > ARTICLE_DATE

    @property
    def trains(self) -> bool:
        """Whether models can be trained on it."""
        return self.use == "trains and serves"


def load_named_hardware() -> tuple[NamedHardware, ...]:
    """Everything the article names, in the table's order."""
    return read_table("named_hardware.csv", NamedHardware)


def named_rows() -> list[tuple[str, ...]]:
    """A row under NAMED_HEADERS for each; unknown figures say so."""
    return [_row(each) for each in load_named_hardware()]


def _row(item: NamedHardware) -> tuple[str, ...]:
    when = item.announced.isoformat() if item.announced else "-"
    if item.after_article:
        when += " (after the article)"
    source = "second-hand" if item.status == "R2" else "read at its source"
    return item.name, item.maker, when, item.use, item.access, *_figures(item), source


def _figures(item: NamedHardware) -> tuple[str, str, str]:
    """Memory, bandwidth and 16-bit rate in words."""
    if item.use == "market":
        return "-", "-", "-"
    chip = item.figures
    if chip is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    values = (chip.memory_gb, chip.bandwidth_tb_s, chip.bf16_tflops or chip.fp16_tflops)
    memory, bandwidth, rate = (UNKNOWN if v is None else significant(v) for v in values)
    return memory.removesuffix(".0"), bandwidth, rate.removesuffix(".0")
