"""Recorded runs of other machines: one JSON file per device in utils/data/recorded/.

How it works: `make record` writes a file with device, driver, torch version, date and the code's
version; lessons show every file found beside the learner's own run. A file that is damaged or does
not come from `make record` is named and skipped, never a crash and never silently; so is a single
experiment whose rows are not what its lesson reads (utils/recorded_rows.py).

An experiment that was recorded again alone (`python -m utils.record --only NAME`) keeps a date and
versions of its own under "made"; `load_recorded` gives a run with those.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.measured import measured_text
from utils.recorded_rows import experiments_problem, file_problem, rows_problem

FOLDER = Path(__file__).parent / "data" / "recorded"
SCHEMA = 1
FIELDS = ("device", "kind", "driver", "torch", "date", "code_version", "experiments")
MAY_LACK = ("made", "skipped")
Rows = list[dict[str, Any]]
_unsaid: list[str] = []  # what the next block of `show_recorded` has to say about skipped files


@dataclass(frozen=True)
class RecordedRun:
    """What one machine measured, and when; `experiments` maps a name to its rows."""

    device: str
    kind: str  # "cpu" or "cuda"
    driver: str
    torch: str
    date: str
    code_version: str
    experiments: dict[str, Rows]
    made: dict[str, dict[str, Any]] = field(default_factory=dict)  # experiment -> date, seconds ...
    skipped: dict[str, str] = field(default_factory=dict)  # experiment -> why it has no rows

    @property
    def label(self) -> str:
        """Device, torch version and date, as every quoted figure needs them."""
        return f"{self.device}, torch {self.torch}, {self.date}"

    def of(self, experiment: str) -> "RecordedRun":
        """This run with the date and the versions with which `experiment` was recorded."""
        made = self.made.get(experiment, {})
        own = {name: made[name] for name in ("driver", "torch", "date", "code_version")
               if name in made}  # fmt: skip
        return replace(self, **own)


def load_recorded(
    experiment: str,
    kind: str | None = None,
    folder: Path = FOLDER,
    report: Callable[[str], None] = _unsaid.append,
) -> list[RecordedRun]:
    """All recorded runs that hold `experiment`, by device.

    `report` gets a sentence for each file, or experiment in it, that is skipped. By default the
    next `show_recorded` says it: a line outside of its block would count as a changed output.
    """
    runs = []
    for path in sorted(folder.glob("*.json")):
        run, problem = read_recorded(path)
        if run is not None and experiment in run.experiments and kind in (None, run.kind):
            problem = rows_problem(experiment, run.experiments[experiment])
            if not problem:
                runs.append(run.of(experiment))
            problem = problem and f"its {experiment} {problem}; record it again"
        if problem:
            report(f"Skipped {path.name}: {problem}.")
    return runs


def show_recorded(
    title: str, headers: Sequence[str], rows: Iterable[Sequence[object]], kinds: Iterable[str]
) -> None:
    """Display recorded figures as a block that strict comparison leaves out, for anyone may record.

    `kinds` are the kinds of the runs behind the rows: without "cuda", the block says that no GPU
    has been recorded yet; it never invents one. Skipped files are named below.
    """
    lines = text_table(headers, rows)
    if "cuda" not in set(kinds):
        lines.append("GPU: not recorded yet (`make record` on a machine with one adds it)")
    lines += dict.fromkeys(_unsaid)
    _unsaid.clear()
    measured_text(title, "\n".join(lines))


def text_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of text in columns, the headers first."""
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def read_recorded(path: Path) -> tuple[RecordedRun | None, str]:
    """The run in a file and "", or None and what is wrong with the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return None, f"it cannot be read ({type(error).__name__}); record it again"
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        return None, f"it was not written by `make record` of this course (schema {SCHEMA})"
    missing = [name for name in FIELDS if name not in data]
    if missing:
        return None, f"it lacks {', '.join(missing)}; record it again"
    problem = file_problem(data) or experiments_problem(data["experiments"])
    if problem:
        return None, f"{problem}; record it again"
    known = (*FIELDS, *(name for name in MAY_LACK if name in data))
    return RecordedRun(**{name: data[name] for name in known}), ""


def path_of(device: str, folder: Path = FOLDER) -> Path:
    """The file of a device."""
    name = "".join(c if c.isalnum() else "-" for c in device.lower()).strip("-")
    return folder / f"{name}.json"


def write_recorded(run: RecordedRun, folder: Path = FOLDER) -> Path:
    """Write one device's file, whole or not at all; an older file of the device is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(run.device, folder)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    data = {"schema": SCHEMA, **{name: getattr(run, name) for name in (*FIELDS, *MAY_LACK)}}
    try:
        text = json.dumps(data, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
