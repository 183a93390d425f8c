"""Recorded experiments that no lesson shows in a table of its own: one block each, all devices.

How it works: `show_table(name)` loads every recorded run that holds the experiment and displays its
rows through `show_recorded`, which strict comparison leaves out. Units are those of the headers.

Left out: experiments that lessons 02, 04, 05, 10 and 11 turn into tables themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.measured import significant
from utils.plots import bytes_text
from utils.recorded import FOLDER, RecordedRun, load_recorded, show_recorded

Cells = tuple[str, ...]


@dataclass(frozen=True)
class RecordedTable:
    """A title, headers after the device's, and how a row becomes cells."""

    title: str
    headers: Cells
    cells: Callable[[dict[str, Any]], Cells]


def _whole_step(row: dict[str, Any]) -> Cells:
    peak = bytes_text(row["peak_bytes"]) if row["peak_bytes"] else "-"
    return row["recipe"], _ms(row["seconds"]), f"{row['tokens_per_s']:,.0f}", peak


def _capstone(row: dict[str, Any]) -> Cells:
    mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
    compiled = "compiled" if row["is_compiled"] else "as it is"
    return (row["precision"], compiled, f"{row['batch_size']}", f"{row['tokens_per_s']:,.0f}",
            mfu, row["peak_source"])  # fmt: skip


def _ranks(row: dict[str, Any]) -> Cells:
    sizes = (bytes_text(row[key]) for key in ("held_bytes", "peak_bytes", "sent_bytes"))
    return row["recipe"], _ms(row["seconds"]), *sizes


def _collectives(row: dict[str, Any]) -> Cells:
    rate = row["bytes"] / row["seconds"] / 1e6
    size = bytes_text(row["bytes"])
    return row["backend"], f"{row['num_ranks']}", size, _ms(row["seconds"]), f"{rate:,.0f}"


TABLES = {
    "whole_step": RecordedTable(
        "Recorded: a whole step with AdamW",
        ("recipe", "ms", "tokens/s", "peak"), _whole_step,
    ),
    "capstone": RecordedTable(
        "Recorded: share of the peak rate (MFU)",
        ("format", "step", "sequences", "tokens/s", "MFU", "peak rate"), _capstone,
    ),
    "ranks": RecordedTable(
        "Recorded: two ranks, by method",
        ("recipe", "ms", "held", "peak", "sent"), _ranks,
    ),
    "collectives": RecordedTable(
        "Recorded: an all-reduce, by its bytes",
        ("backend", "ranks", "size", "ms", "MB/s"), _collectives,
    ),
}  # fmt: skip


def show_table(name: str, folder: Path = FOLDER) -> None:
    """Display the block of one experiment of TABLES. Raises ValueError for another name."""
    if name not in TABLES:
        raise ValueError(f"There is no table of {name!r}; take one of {', '.join(TABLES)}.")
    recorded, runs = TABLES[name], load_recorded(name, folder=folder)
    headers = ("device", *recorded.headers)
    show_recorded(recorded.title, headers, table_rows(name, runs), [run.kind for run in runs])


def table_rows(name: str, runs: list[RecordedRun]) -> Iterator[Cells]:
    """The cells of every row of every run, the device first."""
    for run in runs:
        for row in run.experiments[name]:
            yield run.device, *TABLES[name].cells(row)


def _ms(seconds: float) -> str:
    return significant(1e3 * seconds)
