"""Records of any number of invocations as one table: what was repeated how often, what failed.

Left out: statistics; a cell that failed once is named, however often it passed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from utils.measured import measured, table
from utils.proving.plan import UsageError
from utils.proving.records import NAME, Record, read_records
from utils.proving.repetition import ROOT

HEADERS = (
    "conditions", "notebooks", "repetitions", "passed", "cells compared", "failed cells",
    "slowest repetition", "slowest notebook",
)  # fmt: skip


def records_of(folders: Sequence[Path]) -> list[Record]:
    """All records; raises UsageError where there are none, and names lines that are damaged."""
    found: list[Record] = []
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        try:
            records, damaged = read_records(folder)
        except OSError as error:
            raise UsageError(
                f"{folder} has no {NAME} that can be read ({error.strerror}); name the log folder "
                "that an earlier `python -m utils.prove` has printed."
            ) from None
        for number in damaged:
            print(f"{folder / NAME}, line {number}: no record, left out.")
        found += records
    if not found:
        raise UsageError("No repetition is recorded there yet.")
    return found


def print_summary(records: Sequence[Record]) -> None:
    """The table, then every failure by name, then the versions of the code."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.conditions(), _notebooks(record)].append(record)
    rows = [[*key, *_row(group)] for key, group in sorted(groups.items())]
    table(HEADERS, rows, f"{len(records)} repetitions")
    failures = Counter((name, each.conditions()) for each in records for name in each.failing)
    print(*[f"{times} x {name} ({where})" for (name, where), times in failures.most_common()]
          or ["Nothing failed."], sep="\n")  # fmt: skip
    versions = Counter(record.code_version for record in records)
    print("Code:", ", ".join(f"{version} ({times})" for version, times in versions.items()))


def _row(group: Sequence[Record]) -> list[str | int]:
    slowest_s = max((s for record in group for s in record.notebook_s.values()), default=0.0)
    return [
        len(group),
        sum(record.has_passed for record in group),
        sum(record.passed + record.failed for record in group),
        sum(record.failed for record in group),
        measured(max(record.seconds for record in group), "s"),
        measured(slowest_s, "s"),
    ]


def _notebooks(record: Record) -> str:
    """Repetitions of different notebooks are not added up."""
    names = f"all {len(record.order)}" if record.is_whole else ", ".join(sorted(record.order))
    return names if record.folder == str(ROOT) else f"{names} of {record.folder}"
