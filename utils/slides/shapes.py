"""The layout of a slide in numbers: what fits, and how tall a piece of text will be.

The sizes belong to `template/course/static/slides.css` (26 px prose, 19 px code on 1280 x 720);
`tests/browser/test_slides.py` opens the decks and holds the estimates against what Chromium draws.
"""

from __future__ import annotations

import re
import textwrap
from enum import IntEnum

from utils.measured import MARK

WIDTH_PX, HEIGHT_PX = 1280, 720
CONTENT_PX = 1216  # of the width, inside the margins
USABLE_PX = 668  # of the height, inside the margins
RUNNING_HEAD_PX = 40  # the section's title on its second and later slides

PROSE_LINE_PX, PROSE_GAP_PX, PROSE_COLUMNS = 36, 14, 88
HEADING_PX = {1: 88, 2: 74, 3: 58}
CODE_LINE_PX, CODE_MARGIN_PX = 25, 26
OUTPUT_LINE_PX, OUTPUT_MARGIN_PX, OUTPUT_COLUMNS = 24, 12, 98
SMALL_LINE_PX, SMALL_COLUMNS, MAX_BOX_PX = 23, 112, 600  # blocks of measured text
MAX_CODE_LINES = (USABLE_PX - RUNNING_HEAD_PX - CODE_MARGIN_PX) // CODE_LINE_PX
MAX_OUTPUT_LINES = (USABLE_PX - RUNNING_HEAD_PX - OUTPUT_MARGIN_PX) // OUTPUT_LINE_PX
MAX_FIGURE_PX = 470
MAX_FIGURE_SCALE = 1.4  # larger, and the figure's pixels show


class Glue(IntEnum):
    """How firmly a block holds on to the next one."""

    NONE = 0
    SHOULD = 1  # together if both fit on one slide: code and its output
    MUST = (
        2  # apart only if nothing else fits: heading and text, question and code, caption and table
    )


def prose_height_px(markdown: str) -> int:
    """Height of a heading, a paragraph, a list, a pipe table or fenced code."""
    heading = re.match(r"(#{1,6})\s", markdown)
    if heading:
        return HEADING_PX.get(len(heading[1]), HEADING_PX[3])
    if markdown.lstrip().startswith(("```", "~~~")):
        return len(markdown.splitlines()) * CODE_LINE_PX + CODE_MARGIN_PX
    num_lines = sum(_wrapped(line) for line in _logical_lines(markdown))
    return num_lines * PROSE_LINE_PX + PROSE_GAP_PX


def num_columns(text: str) -> int:
    """How many characters wide a text is; a mark of measured numbers counts as two."""
    return len(text) + text.count(MARK)


def num_wrapped(line: str, columns: int) -> int:
    """How many lines a text takes that is broken between words."""
    wide = line.replace(MARK, 2 * MARK)
    return max(1, len(textwrap.wrap(wide, columns, break_on_hyphens=False)))


def _wrapped(line: str) -> int:
    shown = re.sub(r"\]\([^)]*\)|[*`\[]|<[^>]+>", "", line)
    is_item = re.match(r"\s*([-*+]|\d+\.)\s", line)
    return num_wrapped(shown, PROSE_COLUMNS - 4 * bool(is_item))


def _logical_lines(markdown: str) -> list[str]:
    """Lines as they are set: a paragraph or an item is one, however its source is broken."""
    lines: list[str] = []
    for line in markdown.splitlines():
        if not lines or re.match(r"\s*([-*+]|\d+\.)\s|\s*\||\s*<", line):
            lines.append(line)
        else:
            lines[-1] += " " + line.strip()
    return lines


def figure_size_px(width: int, height: int) -> tuple[int, int]:
    """The size at which a picture is shown: as large as a slide and its pixels allow."""
    scale = min(CONTENT_PX / width, MAX_FIGURE_PX / height, MAX_FIGURE_SCALE)
    return round(width * scale), round(height * scale)
