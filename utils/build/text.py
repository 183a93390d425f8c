"""Turn a source in percent format into notebooks that are not yet run.

How it works: jupytext reads the cells. A lab gives two versions: for the learner, each region
between `### BEGIN SOLUTION` and `### END SOLUTION` becomes a `raise NotImplementedError` at the
same indentation and cells with the tag `solution` are dropped; for the solution, the marker lines
and cells with the tag `lab` are. What could go wrong silently (a tag behind the cell's type, a
misspelled tag or marker, text before the first cell) is refused with a sentence.

Left out: magics (a comment that looks like one stays a comment) and metadata except tags.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from utils.build.guard import fingerprint
from utils.build.plan import BuildError, Draft, is_lab
from utils.build.show import expand

STUB = 'raise NotImplementedError("your turn")'
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_MARKER_LIKE = re.compile(r"#.*\b(begin|end)[\s_-]*solution", re.IGNORECASE)
_FIRST_CELL = re.compile(r"(# ---\n(#.*\n)*?# ---\n)?\s*# %%")
_PERCENT = {"extension": ".py", "format_name": "percent", "comment_magics": False}
_LAYOUT_KEYS = {"lines_to_next_cell", "lines_to_end_of_cell_marker", "cell_marker"}
_LESSON_TAGS = {"raises-exception"}
_LAB_TAGS = {"raises-exception", "solution", "lab"}


@dataclass(frozen=True)
class Cell:
    """One cell of a source: its place from 1, "code" or "markdown", its text and its tags."""

    number: int
    kind: str
    text: str
    tags: frozenset[str] = frozenset()


def drafts_of(source: Path, root: Path) -> list[Draft]:
    """The notebooks that a source gives: one for a lesson, lab and solution for a lab."""
    cells = read_cells(source, root)
    if not is_lab(source.stem):
        return [_draft(cells, source, "notebooks")]
    learner = [_stubbed(cell) for cell in cells if "solution" not in cell.tags]
    if learner == [cell for cell in cells if "solution" not in cell.tags]:
        raise BuildError(
            f"sources/{source.name} has no region between `{BEGIN}` and `{END}`, so "
            "the lab would show its solutions; mark them."
        )
    solved = [_solved(cell) for cell in cells if "lab" not in cell.tags]
    return [_draft(learner, source, "labs"), _draft(solved, source, "solutions")]


def read_cells(source: Path, root: Path) -> list[Cell]:
    """Read and check a source; `# show:` lines are replaced by the code they name."""
    name = f"sources/{source.name}"
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{name} cannot be read ({error}); save it as UTF-8.") from None
    if not _FIRST_CELL.match(text):
        raise BuildError(
            f"{name} does not begin with `# %%` or `# %% [markdown]`; put all text into cells."
        )
    notebook = jupytext.reads(text, fmt=_PERCENT)
    cells = []
    for number, raw in enumerate(notebook.cells, start=1):
        cell = Cell(number, raw.cell_type, raw.source, frozenset(raw.metadata.get("tags", [])))
        try:
            _refuse_metadata(raw, is_lab(source.stem))
            shown = expand(cell.text, root) if cell.kind == "code" else cell.text
            cells.append(replace(cell, text=shown))
            if solution_regions(cells[-1]) and not is_lab(source.stem):
                raise BuildError("solution markers belong into a lab, and this is a lesson.")
        except BuildError as error:
            first = cell.text.strip().split("\n")[0]
            raise BuildError(f"{name}, cell {number} (`{first}`): {error}") from None
    return cells


def _refuse_metadata(raw: NotebookNode, in_lab: bool) -> None:
    if "incorrectly_encoded_metadata" in raw.metadata:
        raise BuildError('the header is in the wrong order; write `# %% [markdown] tags=["lab"]`.')
    unknown = sorted(set(raw.metadata) - _LAYOUT_KEYS - {"tags"})
    if unknown:
        values = ", ".join(f"{key}: {raw.metadata[key]}" for key in unknown)
        raise BuildError(f"the header says more than a type and tags ({values}); remove that.")
    known = _LAB_TAGS if in_lab else _LESSON_TAGS
    strange = sorted(set(raw.metadata.get("tags", [])) - known)
    if strange:
        raise BuildError(f"unknown tag {', '.join(strange)}; use {', '.join(sorted(known))}.")
    if raw.cell_type not in ("code", "markdown"):
        raise BuildError(f"{raw.cell_type} cells are not used here; make it code or markdown.")
    if not raw.source.strip():
        raise BuildError("the cell is empty; remove it.")


def solution_regions(cell: Cell) -> list[tuple[int, int]]:
    """First and last line (from 0, markers included) of each solution region in a cell."""
    regions: list[tuple[int, int]] = []
    open_at: int | None = None
    lines = cell.text.split("\n")
    for k, line in enumerate(lines):
        if not _MARKER_LIKE.search(line):
            continue
        mark = line.strip()
        if mark not in (BEGIN, END) or cell.kind != "code":
            raise BuildError(
                f"`{mark}` is not a marker here; write exactly `{BEGIN}` and `{END}`, "
                "in a code cell."
            )
        if (mark == BEGIN) != (open_at is None):
            raise BuildError(f"`{mark}` has no partner; markers come in pairs and do not nest.")
        if not _indent(line) or (open_at is not None and _indent(line) != _indent(lines[open_at])):
            raise BuildError(
                f"`{mark}` must stand inside a function, both markers of a pair at "
                "the same indentation."
            )
        if open_at is None:
            open_at = k
        else:
            regions.append((open_at, k))
            open_at = None
    if open_at is not None:
        raise BuildError(f"`{BEGIN}` has no partner; markers come in pairs and do not nest.")
    return regions


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _stubbed(cell: Cell) -> Cell:
    lines = cell.text.split("\n")
    for first, last in reversed(solution_regions(cell)):
        lines[first : last + 1] = [_indent(lines[first]) + STUB]
    return replace(cell, text="\n".join(lines))


def _solved(cell: Cell) -> Cell:
    markers = {k for region in solution_regions(cell) for k in region}
    kept = [line for k, line in enumerate(cell.text.split("\n")) if k not in markers]
    return replace(cell, text="\n".join(kept))


def _draft(cells: Sequence[Cell], source: Path, folder: str) -> Draft:
    name = f"sources/{source.name}"
    notebook = nbformat.v4.new_notebook()
    seen: Counter[str] = Counter()
    for cell in cells:
        digest = hashlib.sha256(f"{source.stem}|{cell.kind}|{cell.text}".encode()).hexdigest()[:10]
        seen[digest] += 1
        make = nbformat.v4.new_code_cell if cell.kind == "code" else nbformat.v4.new_markdown_cell
        made = make(cell.text, id=digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
        kept = sorted(cell.tags & _LESSON_TAGS)
        made.metadata = nbformat.from_dict({"tags": kept} if kept else {})
        notebook.cells.append(made)
    notebook.metadata = nbformat.from_dict(
        {
            "course": {"fingerprint": fingerprint(notebook.cells), "source": name},
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    target = f"{folder}/{source.stem}.ipynb"
    return Draft(name, target, notebook, tuple(cell.number for cell in cells))
