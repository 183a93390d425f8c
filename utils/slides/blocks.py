"""Cut a lesson into blocks that fit on a slide: a paragraph, some lines of code, a table, a figure.

How it works: each block carries a cell that nbconvert can render, the height it will take in the
layout of `template/course/static/slides.css`, and how firmly it holds on to the next block. Heights
are estimated from lines and columns, on the high side; what is taller than a slide is cut at blank
lines, between rows, or at the last line that fits. The first cell of a notebook and the imports at
the top of a cell say nothing to a room and are left out.

Left out: typesetting formulas (the lessons write them as code) and live widgets (their stored
picture is shown, with its reading).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import nbformat
from nbformat import NotebookNode

from utils.slides.outputs import output_blocks
from utils.slides.shapes import CODE_LINE_PX, CODE_MARGIN_PX, MAX_CODE_LINES, Glue, prose_height_px

_SETUP = "sys.path.insert("
_PREDICTION = re.compile(r"^guess_\w+ = ", re.MULTILINE)
_FENCE = re.compile(r"^\s*(```|~~~)")


@dataclass(frozen=True)
class Block:
    """A cell to render, its height in CSS pixels, and its place among its neighbours."""

    cell: NotebookNode
    height_px: int
    glue: Glue = Glue.NONE  # how firmly it holds on to the block after it
    level: int = 0  # of a heading, else 0
    ends_slide: bool = False


def lesson_blocks(notebook: NotebookNode) -> list[Block]:
    """All blocks of a lesson, in order."""
    blocks: list[Block] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            blocks += prose_blocks(cell.source)
        elif _SETUP in cell.source:
            while blocks and not blocks[-1].level and blocks[-1].glue:
                blocks.pop()  # the sentence that announced the set-up
        else:
            blocks += code_blocks(cell)
    return blocks


def prose_blocks(text: str) -> Iterator[Block]:
    """One block for each heading, paragraph, list, table or fenced code of a markdown cell."""
    for part in _paragraphs(text):
        heading = re.match(r"(#{1,6})\s", part)
        glue = Glue.MUST if part.rstrip("*_`").endswith((":", "?")) else Glue.NONE
        yield Block(
            nbformat.v4.new_markdown_cell(part),
            prose_height_px(part),
            Glue.MUST if heading else glue,
            len(heading[1]) if heading else 0,
        )


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    is_fenced = False
    for line in [*text.splitlines(), ""]:
        is_fenced ^= bool(_FENCE.match(line))
        is_open = is_fenced or _count(lines, "<details") > _count(lines, "</details>")
        if line.strip() or is_open:
            lines.append(line)
        if lines and not is_open and (not line.strip() or re.match(r"#{1,6}\s", line)):
            yield "\n".join(lines)
            lines = []


def _count(lines: list[str], word: str) -> int:
    return sum(line.count(word) for line in lines)


def code_blocks(cell: NotebookNode) -> list[Block]:
    """The code of a cell in pieces of at most a slide, then its outputs."""
    pieces = list(_pieces(without_imports(cell.source)))
    blocks = [
        Block(
            nbformat.v4.new_code_cell(piece),
            len(piece.splitlines()) * CODE_LINE_PX + CODE_MARGIN_PX,
            Glue.SHOULD,
        )
        for piece in pieces
    ]
    for shown in output_blocks(cell.get("outputs", [])):
        blocks.append(Block(shown.cell, shown.height_px, shown.glue))
    if not blocks:
        return []
    is_prediction = bool(_PREDICTION.search(cell.source))
    blocks[-1] = replace(blocks[-1], glue=Glue.NONE, ends_slide=is_prediction)
    return blocks


def without_imports(code: str) -> str:
    """The code of a cell without the imports and comments at its top."""
    last = 0
    for node in ast.parse(code).body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            break
        last = node.end_lineno or node.lineno
    return "\n".join(code.splitlines()[last:]).strip("\n")


def _pieces(code: str) -> Iterator[str]:
    lines = code.splitlines()
    while len(lines) > MAX_CODE_LINES:
        # Half a slide at least: a cut after the first blank line would leave crumbs.
        blank = [k for k in range(MAX_CODE_LINES // 2, MAX_CODE_LINES + 1) if not lines[k].strip()]
        cut = blank[-1] if blank else MAX_CODE_LINES
        yield "\n".join(lines[:cut]).rstrip()
        lines = lines[cut:]
        while lines and not lines[0].strip():
            lines.pop(0)
    if lines:
        yield "\n".join(lines)
