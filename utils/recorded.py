"""Recorded runs of other machines: one JSON file per device in utils/data/recorded/.

How it works: `make record` writes a file with device, driver, torch version, date and the code's
version; lessons show every file found beside the learner's own run. A file that is damaged or does
not come from `make record` is named and skipped, never a crash and never silently.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.measured import measured_text

FOLDER = Path(__file__).parent / "data" / "recorded"
SCHEMA = 1
FIELDS = ("device", "kind", "driver", "torch", "date", "code_version", "experiments")


@dataclass(frozen=True)
class RecordedRun:
    """What one machine measured, and when; `experiments` maps a name to its rows."""

    device: str
    kind: str  # "cpu" or "cuda"
    driver: str
    torch: str
    date: str
    code_version: str
    experiments: dict[str, list[dict[str, Any]]]

    @property
    def label(self) -> str:
        """Device, torch version and date, as every quoted figure needs them."""
        return f"{self.device}, torch {self.torch}, {self.date}"


def load_recorded(
    experiment: str, kind: str | None = None, folder: Path = FOLDER
) -> list[RecordedRun]:
    """All recorded runs that hold `experiment`, by device; damaged files are named and skipped."""
    runs = []
    for path in sorted(folder.glob("*.json")):
        run, problem = _read(path)
        if problem:
            print(f"Skipped {path.name}: {problem}.")
        elif experiment in run.experiments and kind in (None, run.kind):
            runs.append(run)
    return runs


def show_recorded(
    title: str, headers: Sequence[str], rows: Iterable[Sequence[object]], kinds: Iterable[str]
) -> None:
    """Display recorded figures as a block that strict comparison leaves out, for anyone may record.

    `kinds` are the kinds of the runs behind the rows: without "cuda", the block says that no GPU
    has been recorded yet; it never invents one.
    """
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    if "cuda" not in set(kinds):
        lines.append("GPU: not recorded yet (`make record` on a machine with one adds it)")
    measured_text(title, "\n".join(lines))


def _read(path: Path) -> tuple[RecordedRun | None, str]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, f"it cannot be read ({type(error).__name__}); record it again"
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        return None, f"it was not written by `make record` of this course (schema {SCHEMA})"
    missing = [name for name in FIELDS if name not in data]
    if missing or not isinstance(data["experiments"], dict):
        return None, f"it lacks {', '.join(missing) or 'experiments'}; record it again"
    return RecordedRun(**{name: data[name] for name in FIELDS}), ""


def write_recorded(run: RecordedRun, folder: Path = FOLDER) -> Path:
    """Write one device's file, whole or not at all; an older file of the device is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in run.device.lower()).strip("-")
    path = folder / f"{name}.json"
    temporary = path.with_suffix(".tmp")
    data = {"schema": SCHEMA, **{field: getattr(run, field) for field in FIELDS}}
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
