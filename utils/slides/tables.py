"""The layout of a table on a slide: font, width of each column, height of each row.

How it works: columns get the room of their longest cells if that fits, else of their longest words
and a share of the rest. The widths are written into the page, so that what is drawn is what was
counted. A table with more columns than fit is set smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.slides.shapes import CONTENT_PX, num_columns, num_wrapped

FONTS_PX = (20, 18, 16, 14)
CHARACTER = 0.64  # of the font's size: a digit in the widest of the usual fonts
PADDING_PX = {20: 9, 18: 8, 16: 5, 14: 4}  # to the left and to the right of a cell


@dataclass(frozen=True)
class TableLayout:
    """Font and column widths in pixels, and the height of each row, the head first."""

    font_px: int
    widths_px: tuple[int, ...]
    heights_px: tuple[int, ...]

    def opening(self) -> str:
        """The table's opening tag with its columns."""
        columns = "".join(f'<col style="width: {width}px">' for width in self.widths_px)
        return (
            f'<table class="sized font-{self.font_px}" style="width: {sum(self.widths_px)}px">'
            f"<colgroup>{columns}</colgroup>"
        )


def table_layout(rows: Sequence[Sequence[str]]) -> TableLayout:
    """Lay out rows of texts, the head first, in the largest font that breaks no word."""
    longest = [max(num_columns(row[k]) for row in rows) for k in range(len(rows[0]))]
    words = [max(_longest_word(row[k]) for row in rows) for k in range(len(rows[0]))]
    for font_px in FONTS_PX:
        padding_px = 2 * PADDING_PX[font_px] * len(words)
        room = int((CONTENT_PX - padding_px) / (CHARACTER * font_px))
        columns = _columns(longest, words, room)
        if columns and max(_heights(rows, columns)) <= 6:
            break
    columns = columns or [max(1, room * word // sum(words)) for word in words]
    widths = (round(c * CHARACTER * font_px) + 2 * PADDING_PX[font_px] for c in columns)
    line_px = round(1.25 * font_px)
    heights = (lines * line_px + 12 for lines in _heights(rows, columns))
    return TableLayout(font_px, tuple(widths), tuple(heights))


def _longest_word(text: str) -> int:
    return max(map(num_columns, text.split()), default=1)


def _columns(longest: Sequence[int], words: Sequence[int], room: int) -> list[int] | None:
    """Characters for each column; None if the longest words alone are too wide."""
    asked = [each + 1 for each in longest]
    least = [word + 1 for word in words]
    if sum(asked) <= room:
        return asked
    if sum(least) > room:
        return None
    share = (room - sum(least)) / max(1, sum(a - b for a, b in zip(asked, least, strict=True)))
    return [b + int(share * (a - b)) for a, b in zip(asked, least, strict=True)]


def _heights(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> list[int]:
    """Lines of text in each row."""
    return [
        max(num_wrapped(text, room) for text, room in zip(row, columns, strict=True))
        for row in rows
    ]
