"""Rooms for tests of the grading: submissions made from the course's own notebooks."""

from __future__ import annotations

import json
from pathlib import Path

from utils.grading.clerk import Limits
from utils.grading.course import Lab, read_labs
from utils.grading.table import Row

ROOT = Path(__file__).resolve().parents[1]
LABS = read_labs(ROOT)
QUICK = Limits(exercise_s=12.0, lab_s=90.0, memory_bytes=3 * 2**29, file_bytes=64 * 2**20)


def notebook_of(lab: Lab, folder: str = "labs") -> dict:
    """The course's notebook as JSON."""
    return json.loads((ROOT / folder / f"{lab.stem}.ipynb").read_text(encoding="utf-8"))


def code_cell(source: str) -> dict:
    """A cell as a learner adds one."""
    return {"cell_type": "code", "metadata": {}, "outputs": [], "source": source, "id": "mine",
            "execution_count": None}  # fmt: skip


def answered(number: str, answers: dict[str, str], before: str = "", after: str = "") -> str:
    """A lab in which the stub of each named answer is replaced by a source.

    `before` becomes the first code cell, `after` the last.
    """
    notebook = notebook_of(LABS[number])
    for name, source in answers.items():
        cell = next(c for c in notebook["cells"] if f"def {name}(" in "".join(c["source"]))
        cell["source"] = source
    notebook["cells"] = [code_cell(before), *notebook["cells"], code_cell(after)]
    return json.dumps(notebook)


def hand_in(room: Path, learner: str, number: str, content: str | bytes) -> Path:
    """Put a file into the learner's folder."""
    folder = room / learner
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{LABS[number].stem}.ipynb"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def by_key(rows: list[Row]) -> dict[tuple[str, str], Row]:
    """Rows by learner and exercise."""
    return {(row.learner, row.exercise): row for row in rows}
