"""The course's own labs, as the grader needs them: exercises, the names of answers, the stubs.

How it works: labs/*.ipynb are read; the check cells say which name is the answer to which
exercise. Nothing of this comes from a submission.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from utils.grading.notebook import code_cells

LAB_FILE = re.compile(r"lab_(\d\d)_[a-z0-9_]+\.ipynb")


class CourseError(Exception):
    """One sentence for the instructor: what is wrong with the course or the call."""


@dataclass(frozen=True)
class Asked:
    """An exercise: its key ("01.2") and the name that its check cell looks at."""

    key: str
    name: str


@dataclass(frozen=True)
class Lab:
    """A lab as it is handed out: number ("01"), name of the file, exercises, code cells."""

    number: str
    stem: str
    exercises: tuple[Asked, ...]
    cells: tuple[str, ...]


def read_labs(root: Path) -> dict[str, Lab]:
    """The labs in `root`/labs by number; raises CourseError."""
    labs = {}
    for path in sorted((root / "labs").glob("*.ipynb")):
        found = LAB_FILE.fullmatch(path.name)
        if found:
            cells = tuple(code_cells(path.read_bytes()))
            asked = tuple(each for cell in cells for each in checks_in(cell))
            nameless = [each.key for each in asked if not each.name]
            if nameless:
                raise CourseError(
                    f"{path.name} checks {', '.join(nameless)} without naming the answer: write "
                    'check("01.1", name), so that it can be found in a submission.'
                )
            labs[found[1]] = Lab(found[1], path.stem, asked, cells)
    if not labs:
        raise CourseError(f"There are no labs in {root / 'labs'}; run `make build` first.")
    return labs


def checks_in(cell: str) -> list[Asked]:
    """The exercises that a cell checks by `check("01.1", name)`; a name "" stands for no name."""
    try:
        nodes = list(ast.walk(ast.parse(cell)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    calls = [node for node in nodes if isinstance(node, ast.Call) and len(node.args) == 2]
    return [
        Asked(call.args[0].value, getattr(call.args[1], "id", ""))
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "check"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]
