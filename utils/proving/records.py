"""One line of JSON for each repetition, in `records.jsonl` of the log folder.

How it works: a line is appended when a repetition has ended, so that whatever stops the command
later loses nothing; several invocations may write to one folder, even at the same time.

Left out: repetitions that were stopped before their end; they prove nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "records.jsonl"


@dataclass(frozen=True)
class Record:
    """A repetition: what it ran, under what, what came out; `failing` is empty if it passed."""

    run: str
    number: int
    folder: str
    is_whole: bool
    num_cores: int
    num_load: int
    seed: int | None
    passed: int
    failed: int
    failing: list[str]
    seconds: float
    notebook_s: dict[str, float]
    order: list[str]
    code_version: str
    python: str
    begun: str
    log: str = ""

    @property
    def has_passed(self) -> bool:
        """Whether no test failed."""
        return not self.failing

    def conditions(self) -> str:
        """In words, without the seed: what is added up."""
        cores = f"{self.num_cores} core{'s' * (self.num_cores != 1)}"
        busy = f"{self.num_load} busy process{'es' * (self.num_load != 1)}"
        order = "usual" if self.seed is None else "random"
        return f"{cores}, {busy if self.num_load else 'no load'}, {order} order"


def add_record(record: Record, folder: Path) -> None:
    """Append it, in one write."""
    with (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def read_records(folder: Path) -> tuple[list[Record], list[int]]:
    """The records, and the numbers of lines that are none (a full disk cut them off)."""
    records, damaged = [], []
    lines = (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError):
            damaged.append(number)
    return records, damaged
