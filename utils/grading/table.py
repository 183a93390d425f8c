"""The table of a room: one row for each learner and exercise, as CSV, as HTML, as text.

How it works: files are written beside and then put in place, so a reader, or a grading that was
interrupted, finds the old table or the new one. The CSV is what a resumed grading reads back.
Texts that a spreadsheet would take for a formula get an apostrophe in front.
"""

from __future__ import annotations

import csv
import html
import io
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from utils.grading.course import CourseError
from utils.grading.reports import STATUSES

CSV_NAME, HTML_NAME = "grades.csv", "grades.html"
MARKS = dict(zip(STATUSES, "+-.?", strict=True))
LEGEND = ", ".join(f"{mark} {status}" for status, mark in MARKS.items())
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STYLE = (
    "body{font-family:sans-serif;margin:2em;color:#222;background:#fff}"
    "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.3em .6em;text-align:left;"
    "vertical-align:top}td:nth-child(-n+3){white-space:nowrap}th{background:#eee}.passed{background:#d5ebe1}"
    ".needs{background:#f7e3c0}"
)


@dataclass(frozen=True)
class Row:
    """One line. `look`: why a person should look; the rest says what was graded by what."""

    learner: str
    exercise: str
    status: str
    message: str
    look: str = ""
    file: str = ""
    sha256: str = ""
    course: str = ""  # fingerprint of checks and labs


COLUMNS = [field.name for field in fields(Row)]


def safe(text: str) -> str:
    """A cell's text on one line, printable, and never a formula."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"'{text}" if text.startswith(_FORMULA) else text


def read_rows(folder: Path) -> list[Row]:
    """The rows of an earlier grading; none if there was none. Raises CourseError."""
    path = folder / CSV_NAME
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error):
        lines = [[]]
    well = lines and lines[0] == COLUMNS and all(len(line) == len(COLUMNS) for line in lines)
    if not well:
        raise CourseError(
            f"{path} is not a table of this command, or is damaged: move it away, or name another "
            "folder with --out."
        )
    return [Row(*line) for line in lines[1:]]


def write_tables(rows: Sequence[Row], folder: Path) -> None:
    """Write both files; raises OSError, and then the old ones are still there."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([safe(each) for each in astuple(row)] for row in rows)
    _put(folder / CSV_NAME, "\ufeff" + text.getvalue())
    _put(folder / HTML_NAME, as_html(rows))


def _put(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def as_text(rows: Sequence[Row]) -> str:
    """One line a learner, one mark an exercise, and what needs a look below."""
    marks: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        marks[row.learner][row.exercise] = MARKS.get(row.status, " ")
    labs = sorted({row.exercise[:2] for row in rows})
    widths = {lab: len({r.exercise for r in rows if r.exercise[:2] == lab}) for lab in labs}
    name_width = max([len(safe(name)) for name in marks] + [len("learner")])
    head = "  ".join([f"{'learner':<{name_width}}", *(lab.ljust(widths[lab]) for lab in labs)])
    lines = [head]
    for learner, by_exercise in sorted(marks.items()):
        groups = ("".join(mark for key, mark in sorted(by_exercise.items()) if key[:2] == lab)
                  .ljust(widths[lab]) for lab in labs)  # fmt: skip
        lines.append("  ".join([f"{safe(learner):<{name_width}}", *groups]).rstrip())
    counts = Counter(row.status for row in rows)
    lines += ["", LEGEND, ", ".join(f"{counts[status]} {status}" for status in STATUSES)]
    lines += [f"Needs a look: {safe(row.learner)} {row.exercise}: {safe(row.look or row.message)}"
              for row in rows if row.look or row.status == STATUSES[-1]]  # fmt: skip
    return "\n".join(lines)


def as_html(rows: Sequence[Row]) -> str:
    """A page that needs nothing else: every row, statuses in words and in colour."""
    shown = ("learner", "exercise", "status", "message", "look")
    head = "".join(f'<th scope="col">{name}</th>' for name in shown)
    body = []
    for row in rows:
        kind = row.status.split()[0] if row.status in ("passed", "needs a look") else "other"
        cells = "".join(f"<td>{html.escape(safe(getattr(row, name)))}</td>" for name in shown)
        body.append(f'<tr class="{kind}">{cells}</tr>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Grades</title>'
        f"<style>{_STYLE}</style></head><body><h1>Grades</h1>\n<pre>{html.escape(as_text(rows))}"
        f"</pre>\n<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n"
        "</tbody></table></body></html>\n"
    )
