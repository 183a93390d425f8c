"""Every lever on the bill in one table: the article's factor, the sources', and the measured one.

How it works: a line of utils/data/levers.csv is a `Lever`; it divides seconds, bytes, tokens or
dollars by a factor, so 2 means half and 0.9 means a loss. The article's and the sources' factors
are in the table; the course's own are read off recorded runs by the reader that the line names
(utils/lever_readers.py). What the article does not name has no claim, what has no recording no
measurement. `draw_levers` is the ranking.

Left out: products of levers. They overlap: the speedrun's factor contains 16 bits, fused attention
and compiling, and what saves bytes saves seconds only where memory was short.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from utils.data import FOLDER as TABLES
from utils.data import STATUS_WORDS, check_row, read_table
from utils.lever_readers import READERS
from utils.measured import measured
from utils.plots import OKABE_ITO
from utils.recorded import FOLDER, load_recorded

KINDS = ("seconds", "tokens", "bytes", "dollars")
LEVER_HEADERS = ("lever", "divides", "article", "sources", "measured here", "source, date read")
RECORDED = {
    "cpu": {"marker": "X", "color": "black", "label": "a recorded CPU"},
    "cuda": {"marker": "P", "color": OKABE_ITO[2], "label": "a recorded GPU"},
}
Range = tuple[float, float] | None


@dataclass(frozen=True)
class Lever:
    """One way to pay less, as a line of the table; empty cells are None."""

    lever: str
    divides: str
    claimed_low: float | None
    claimed_high: float | None
    sourced_low: float | None
    sourced_high: float | None
    source: str
    read_on: date
    status: str
    lesson: str
    reader: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)
        if self.divides not in KINDS:
            raise ValueError(f"divides is {self.divides!r}; it must be one of {', '.join(KINDS)}.")
        if self.reader not in READERS:
            raise ValueError(f"reader is {self.reader!r}; it must be one of {', '.join(READERS)}.")
        for name, pair in (("claimed", self._claimed), ("sourced", self._sourced)):
            if (pair[0] is None) != (pair[1] is None) or (pair[0] or 0) > (pair[1] or 0):
                raise ValueError(f"{name}_low and {name}_high are no range: {pair[0]}, {pair[1]}.")

    @property
    def _claimed(self) -> tuple[float | None, float | None]:
        return self.claimed_low, self.claimed_high

    @property
    def _sourced(self) -> tuple[float | None, float | None]:
        return self.sourced_low, self.sourced_high

    @property
    def claimed(self) -> Range:
        """The article's factors, or None."""
        return None if self.claimed_low is None else (self.claimed_low, self.claimed_high)

    @property
    def sourced(self) -> Range:
        """The lowest and the highest factor read at a source, or None."""
        return None if self.sourced_low is None else (self.sourced_low, self.sourced_high)

    def measured(self, folder: Path = FOLDER) -> dict[tuple[str, str], tuple[float, float]]:
        """(device, kind) -> lowest and highest factor that its recorded run shows."""
        experiment, read = READERS[self.reader]
        found = {}
        for run in load_recorded(experiment, folder=folder, report=_say_nothing):
            factors = list(read(run.experiments[experiment]))
            if factors:
                found[run.device, run.kind] = min(factors), max(factors)
        return found


def levers(folder: Path = TABLES) -> list[Lever]:
    """All of them, by what they divide, the largest sourced factor first."""
    rows = read_table("levers.csv", Lever, folder)
    return sorted(rows, key=lambda each: (KINDS.index(each.divides), -(each.sourced_high or 0)))


def lever_rows(folder: Path = FOLDER) -> list[tuple[str, ...]]:
    """A row under LEVER_HEADERS each; the measured cell is not compared, the others are."""
    return [
        (each.lever, each.divides, range_text(each.claimed), range_text(each.sourced),
         measured(_measured_text(each, folder)), _source_text(each))
        for each in levers()
    ]  # fmt: skip


def draw_levers(axes: Axes, folder: Path = FOLDER) -> None:
    """One line a lever on a logarithmic axis: the article, the sources, recorded runs."""
    rows = levers()
    for place, lever in enumerate(rows):
        if lever.sourced:
            axes.plot(lever.sourced, [place] * 2, color=OKABE_ITO[0], marker="o", linestyle="-",
                      linewidth=4, alpha=0.8, label="sources")  # fmt: skip
        if lever.claimed:
            axes.plot(lever.claimed, [place - 0.3] * 2, color=OKABE_ITO[1], marker="D",
                      linestyle=":", linewidth=1.5, label="the article")  # fmt: skip
        for (_, kind), factors in lever.measured(folder).items():
            axes.plot(factors, [place + 0.3] * 2, linestyle="-", linewidth=1, **RECORDED[kind])
    for place in range(1, len(rows)):
        if rows[place].divides != rows[place - 1].divides:
            axes.axhline(place - 0.5, color="#888888", linewidth=0.8, label="_kind")
    axes.axvline(1, color="black", linewidth=0.8, label="_one")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [f"{each.lever}: {each.divides}" for each in rows])
    axes.invert_yaxis()
    axes.set_xlabel("divided by (1 = no change)")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)


def range_text(factors: Range) -> str:
    """The text "1.5 to 5.5", one number where both are the same, "-" for no figure."""
    if factors is None:
        return "-"
    low, high = (f"{factor:.3g}" for factor in factors)
    return low if low == high else f"{low} to {high}"


def _measured_text(lever: Lever, folder: Path) -> str:
    if lever.reader == "nothing":
        return "-"
    found = lever.measured(folder)
    parts = [
        f"{range_text(factors)} on {device.partition(',')[0]}"
        for (device, _), factors in found.items()
    ]
    return "; ".join(parts) or "not recorded yet"


def _source_text(lever: Lever) -> str:
    words = "" if lever.status in ("R", "C") else f", {STATUS_WORDS[lever.status]}"
    return f"{lever.source}; {lever.read_on.isoformat()}{words}"


def _say_nothing(sentence: str) -> None:
    """Skipped files are named by the lessons' own blocks."""
