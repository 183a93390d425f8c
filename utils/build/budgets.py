"""The course's style in numbers: how long, how dense, how explained a notebook may be.

How it works: `lesson_problems` and `lab_problems` return one sentence for each number that is out
of its range, and for headings, alternative texts and readings of figures that are missing. The
ranges come from notebooks that people like to read (code cells of 2-6 lines, 1,000-2,700 words).
Lines are lines that are not blank; words are counted without code fences, tags and link targets.

Left out: whether the prose is any good.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from nbformat import NotebookNode

from utils.build.rules import sections

LESSON_CELLS, LESSON_WORDS = (40, 70), (1200, 2500)
LAB_CELLS, LAB_WORDS, LAB_EXERCISES = (15, 35), (0, 1000), (3, 6)
MAX_MEDIAN_LINES, MAX_USUAL_LINES, MAX_LINES = 6, 15, 30
MIN_SHARE_USUAL, MIN_SHARE_ANNOUNCED = 0.9, 0.8
MAX_WORDS_PER_CELL = 150
_FENCE = re.compile(r"^(```|~~~).*?^\1[`~]*\s*$", re.MULTILINE | re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
# An explorer's twin ends in its reading; a live curve's numbers are never twice the same.
_TWIN_THAT_READS = re.compile(r"\[live curve\] |\[interactive\] .+: \S.*\.$")
_LINK_TARGET = re.compile(r"\]\([^)]*\)")


def num_words(markdown: str) -> int:
    """Words that a reader reads."""
    text = _TAG.sub(" ", _LINK_TARGET.sub("] ", _FENCE.sub(" ", markdown)))
    return sum(1 for word in text.split() if any(c.isalnum() for c in word))


def num_lines(code: str) -> int:
    """Lines that are not blank."""
    return sum(1 for line in code.split("\n") if line.strip())


def lesson_problems(notebook: NotebookNode) -> list[str]:
    """What is out of the budget of a lesson."""
    return [
        *_outside("cells", len(notebook.cells), LESSON_CELLS),
        *_outside("words of prose", sum(map(num_words, _prose(notebook))), LESSON_WORDS),
        *density_problems(notebook),
        *announcement_problems(notebook),
        *common_problems(notebook),
    ]


def lab_problems(notebook: NotebookNode, lab_number: str) -> list[str]:
    """What is out of the budget of a lab; `lab_number` is "01" for lab_01_the_bill."""
    exercises = sections(notebook, "## Exercise")
    found = [
        *_outside("cells", len(notebook.cells), LAB_CELLS),
        *_outside("words of prose", sum(map(num_words, _prose(notebook))), LAB_WORDS),
        *_outside("exercises (`## Exercise ...`)", len(exercises), LAB_EXERCISES),
        *common_problems(notebook),
    ]
    for k, (heading, cells) in enumerate(exercises, start=1):
        key = f"{lab_number}.{k}"
        found += [f"`{heading}` {text}" for text in exercise_problems(cells, key)]
    return found


def exercise_problems(cells: Sequence[NotebookNode], key: str) -> list[str]:
    """What an exercise lacks: the card's difficulty and minutes, the check, a commented hint."""
    card = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown").lower()
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    found = [f"does not say {word}" for word in ("difficulty", "minutes") if word not in card]
    call = rf"\(\s*[\"']{re.escape(key)}[\"']"
    if not re.search(rf"^check{call}", code, re.MULTILINE):
        found.append(f'has no check("{key}", ...)')
    if not re.search(rf"^\s*#\s*hint{call}", code, re.MULTILINE):
        found.append(f'has no commented # hint("{key}")')
    return found


def density_problems(notebook: NotebookNode) -> list[str]:
    """Code cells are short: half of them at most 6 lines, nine of ten at most 15."""
    lines = [num_lines(code) for code in _code(notebook)]
    if not lines:
        return ["there are no code cells"]
    found = []
    if statistics.median(lines) > MAX_MEDIAN_LINES:
        found.append(
            f"code cells have {statistics.median(lines):g} lines in the median; "
            f"allowed are {MAX_MEDIAN_LINES}"
        )
    share = sum(n <= MAX_USUAL_LINES for n in lines) / len(lines)
    if share < MIN_SHARE_USUAL:
        found.append(
            f"only {share:.0%} of the code cells have at most {MAX_USUAL_LINES} lines; "
            f"at least {MIN_SHARE_USUAL:.0%} must"
        )
    return found


def announcement_problems(notebook: NotebookNode) -> list[str]:
    """Most code cells follow prose that ends with a colon or a question mark."""
    silent, num_code = [], 0
    cells = [None, *notebook.cells]
    for number, (before, cell) in enumerate(zip(cells, notebook.cells, strict=False), start=1):
        if cell.cell_type != "code":
            continue
        num_code += 1
        text = before.source if before is not None and before.cell_type == "markdown" else ""
        if not _TAG.sub("", text).rstrip(" \n\t*_`)\"'").endswith((":", "?")):
            silent.append(number)
    if num_code - len(silent) < MIN_SHARE_ANNOUNCED * num_code:
        return [
            f"only {num_code - len(silent)} of {num_code} code cells follow prose that ends "
            f"with a colon or a question mark; cells {silent} do not"
        ]
    return []


def common_problems(notebook: NotebookNode) -> list[str]:
    """What holds for lessons, labs and solutions alike."""
    found = [*heading_problems(notebook), *figure_problems(notebook)]
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and num_lines(cell.source) > MAX_LINES:
            found.append(
                f"cell {number} has {num_lines(cell.source)} lines of code; allowed are {MAX_LINES}"
            )
        if cell.cell_type == "markdown":
            if num_words(cell.source) > MAX_WORDS_PER_CELL:
                found.append(
                    f"cell {number} has {num_words(cell.source)} words; allowed are "
                    f"{MAX_WORDS_PER_CELL}"
                )
            if re.search(r"!\[\s*\]|<img(?![^>]*\balt=[\"'][^\"'])", cell.source):
                found.append(f"cell {number} has an image without alternative text")
    return found


def heading_problems(notebook: NotebookNode) -> list[str]:
    """One first-level heading, at the top, and no level is skipped."""
    text = "\n".join(_FENCE.sub("", prose) for prose in _prose(notebook))
    headings = re.findall(r"^(#{1,6})\s+(.+)$", text, re.MULTILINE)
    levels = [len(marks) for marks, _ in headings]
    found = []
    if levels.count(1) != 1 or levels[0] != 1:
        found.append(f"there are {levels.count(1)} first-level headings; one is needed, at the top")
    for (_, title), before, level in zip(headings[1:], levels, levels[1:], strict=False):
        if level > before + 1:
            found.append(f"`{title}` skips from heading level {before} to {level}")
    return found


def figure_problems(notebook: NotebookNode) -> list[str]:
    """Every picture has a reading: in its text twin, or printed before the next picture."""
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        missing = False
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                found += [_unread(number)] * missing
                missing = not _TWIN_THAT_READS.match(data.get("text/plain", ""))
            elif re.search(r"^Reading: \w", output.get("text", ""), re.MULTILINE):
                missing = False
        found += [_unread(number)] * missing
    return found


def _unread(number: int) -> str:
    return f"cell {number} shows a figure without a line `Reading: ...` after it"


def _outside(what: str, value: int, allowed: tuple[int, int]) -> list[str]:
    low, high = allowed
    return [] if low <= value <= high else [f"{value} {what}; allowed are {low} to {high}"]


def _prose(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def _code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]
