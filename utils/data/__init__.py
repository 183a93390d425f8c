"""The course's tables of chips, prices and training runs, and the one way to read them.

How it works: a dataclass says which columns a table must have and of which type; `read_table`
makes one object per line. README.md in this folder explains columns, sources and status.
Left out: writing tables, guessing types.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

FOLDER = Path(__file__).parent
STATUS_WORDS = {"R": "read at its source", "R2": "second-hand", "C": "computed", "own": "your own"}
Row = TypeVar("Row")


def read_table(name: str, row_type: type[Row], folder: Path = FOLDER) -> tuple[Row, ...]:
    """Read the CSV file `name` into one `row_type` (a dataclass) per line.

    A column is named like the field, or like its metadata "column". An empty cell is None where
    the type allows it, or the empty text in `note`. Raises ValueError with one sentence that names
    file and line for a missing or damaged file, column or cell, and for what `row_type` refuses.
    """
    try:
        lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        _refuse(name, "is missing")
    except (OSError, UnicodeDecodeError) as error:
        _refuse(name, f"cannot be read ({type(error).__name__})")
    hints = get_type_hints(row_type)
    columns = {f.metadata.get("column", f.name): f.name for f in fields(row_type)}
    reader = csv.DictReader(lines, strict=True)
    try:
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            _refuse(name, f"line 1: the column {missing[0]} is missing")
        cells = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        _refuse(name, f"line {reader.reader.line_num}: {error}")
    if not cells:
        _refuse(name, "has no rows")
    make = {field: _maker(hints[field]) for field in columns.values()}
    return tuple(_row(name, number, line, row_type, columns, make) for number, line in cells)


def check_row(row: Any) -> None:
    """Refuse a row (a dataclass) with a number that is not above 0, or with an unknown status.

    M, a figure recalled from memory, is left out on purpose: such figures are not for tables.
    """
    for name, value in vars(row).items():
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value:g}; it must be above 0.")
    if row.status not in STATUS_WORDS:
        raise ValueError(f"status is {row.status!r}; it must be one of {', '.join(STATUS_WORDS)}.")


def _row(
    name: str,
    number: int,
    line: dict[str | None, Any],
    row_type: type[Row],
    columns: dict[str, str],
    make: dict[str, Callable[[str], Any]],
) -> Row:
    if None in line or None in line.values():
        _refuse(name, f"line {number}: the number of cells differs from that of the first line")
    values = {}
    for column, field in columns.items():
        text = line[column].strip()
        if not text and field == "note":
            values[field] = ""
            continue
        try:
            values[field] = make[field](text)
        except ValueError:
            _refuse(name, f"line {number}: {text!r} is no value for {column}")
    try:
        return row_type(**values)
    except ValueError as error:
        _refuse(name, f"line {number}: {error}")


def _maker(kind: Any) -> Callable[[str], Any]:
    """Return the function that turns a cell into a value of this type."""
    makers = {str: _text, float: _number, int: int, date: date.fromisoformat}
    if kind in makers:
        return makers[kind]
    make = next(makers[each] for each in get_args(kind) if each in makers)  # e.g. float | None
    return lambda text: make(text) if text else None


def _text(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _refuse(name: str, what: str) -> NoReturn:
    raise ValueError(
        f"utils/data/{name} {what.removesuffix('.')}; `git checkout -- utils/data/{name}` brings "
        "back the course's own table."
    ) from None
