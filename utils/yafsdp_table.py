"""YaFSDP's published table: sixteen runs, and what they say of "10-25 % faster".

How it works: one frozen `PublishedRun` per line of `utils/data/yafsdp_published.csv`. The authors
timed FSDP and YaFSDP on A100s with 80 GB, one sequence per GPU. Their speed-up is time saved: the
seconds that are gone over FSDP's seconds. One pair of times gives three percentages, `Readings`.

Left out: what no row says, such as the network, the versions and how often a run was repeated.
The seconds are rounded to 0.01, so that percentages computed from them differ from the printed
ones by up to 0.8 points; whatever is said of the percentages uses the printed ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from types import SimpleNamespace

from utils.data import check_row, read_table

ARTICLE_PERCENT = (10.0, 25.0)  # what the article promises


@dataclass(frozen=True)
class Readings:
    """One pair of times as three percentages."""

    less_time_percent: float  # 1 - new / old, the authors' "speedup"
    more_throughput_percent: float  # old / new - 1: tokens per second
    fewer_dollars_percent: float  # per token; rent is paid by time, so it is that of the time


@dataclass(frozen=True)
class PublishedRun:
    """One row: a step of `model` by both systems. `date` and `commit` brought its present form."""

    model: str
    num_gpus: int
    sequence_length: int  # tokens per GPU in a step, for each has one sequence
    checkpointed_layers: int  # whose activations are computed again in backward
    speedup_percent: float  # as printed: time saved
    yafsdp_s: float
    fsdp_s: float
    date: date
    commit: str
    source: str
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        values = dict(vars(self))
        if values.pop("checkpointed_layers") < 0:  # the only number that may be 0
            raise ValueError(f"checkpointed_layers is {self.checkpointed_layers}; 0 or more.")
        check_row(SimpleNamespace(**values))
        if abs(self.readings.less_time_percent - self.speedup_percent) > 1.0:
            raise ValueError(
                f"speedup_percent is {self.speedup_percent}, but the seconds say "
                f"{self.readings.less_time_percent:.1f}."
            )

    @property
    def name(self) -> str:
        """E.g. "Llama 2 7B, 64 GPUs, 2,048 tokens"."""
        return f"{self.model}, {self.num_gpus} GPUs, {self.sequence_length:,} tokens"

    @property
    def readings(self) -> Readings:
        """The three percentages, from the (rounded) seconds."""
        return readings(self.fsdp_s, self.yafsdp_s)


@dataclass(frozen=True)
class TableSummary:
    """What all rows say together; percentages are time saved, as printed."""

    num_rows: int
    below: int  # rows below the article's 10 %
    inside: int  # rows within its 10-25 %
    above: int
    lowest_percent: float
    median_percent: float
    mean_percent: float
    highest_percent: float
    mean_percent_by_length: dict[int, float]  # tokens per GPU -> mean of its rows


def load_yafsdp_published() -> tuple[PublishedRun, ...]:
    """All rows, in the order of the authors' table."""
    return read_table("yafsdp_published.csv", PublishedRun)


def readings(old_s: float, new_s: float) -> Readings:
    """Three percentages of one improvement. Raises ValueError unless both times are above 0."""
    if not (old_s > 0 and new_s > 0):
        raise ValueError(f"Two times above 0 are needed, not {old_s} and {new_s}.")
    less = 100 * (1 - new_s / old_s)
    return Readings(less, 100 * (old_s / new_s - 1), less)


def summarise(
    rows: Sequence[PublishedRun], promised: tuple[float, float] = ARTICLE_PERCENT
) -> TableSummary:
    """Count and average the rows' printed speed-ups. Raises ValueError for no rows."""
    if not rows:
        raise ValueError("There are no rows to summarise; give load_yafsdp_published().")
    low, high = promised
    percents = [row.speedup_percent for row in rows]
    lengths = sorted({row.sequence_length for row in rows})
    return TableSummary(
        num_rows=len(rows),
        below=sum(percent < low for percent in percents),
        inside=sum(low <= percent <= high for percent in percents),
        above=sum(percent > high for percent in percents),
        lowest_percent=min(percents),
        median_percent=statistics.median(percents),
        mean_percent=statistics.fmean(percents),
        highest_percent=max(percents),
        mean_percent_by_length={
            length: statistics.fmean(
                row.speedup_percent for row in rows if row.sequence_length == length
            )
            for length in lengths
        },
    )
