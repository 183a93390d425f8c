"""The outputs of a cell as blocks: text, tables and figures, none taller than a slide.

How it works: text is cut between lines and a table between rows, its head repeated. A figure
becomes an `<img>` with the stored reading as its alternative text, since nbconvert writes none.
What an interactive figure says below itself is printed beneath its picture.
"""

from __future__ import annotations

import base64
import html
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import nbformat
from nbformat import NotebookNode

from utils.slides import shapes
from utils.slides.shapes import Glue, num_wrapped
from utils.slides.tables import table_layout

_TABLE = re.compile(r"\A\s*(<table.*?<tbody>)(.*)(</tbody>\s*</table>)\s*\Z", re.DOTALL)
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", re.DOTALL)
_EXPONENT = re.compile(r"(?<=\de)-(?=\d)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Shown:
    """One output: a cell without code to render, its height, its hold on the next one."""

    cell: NotebookNode
    height_px: int
    glue: Glue = Glue.SHOULD


def output_blocks(outputs: Sequence[NotebookNode]) -> list[Shown]:
    """What the outputs of one cell show, in order."""
    return [shown for output in outputs for shown in _of_output(output)]


def _of_output(output: NotebookNode) -> Iterator[Shown]:
    data = output.get("data", {})
    if "image/png" in data:
        yield from _figure(output)
    elif "text/html" in data and _TABLE.match(data["text/html"]):
        yield from _table(data["text/html"])
    elif "text/html" in data:
        yield _html(data["text/html"])
    elif output.output_type == "error":
        yield from _text(f"{output.ename}: {output.evalue}")
    else:
        yield from _text(_ANSI.sub("", output.get("text") or data.get("text/plain", "")))


def _text(text: str) -> Iterator[Shown]:
    """Lines in pieces of a slide; the last piece holds on to a table or figure that follows."""
    piece: list[str] = []
    height = 0
    for line in text.rstrip("\n").split("\n"):
        height_of_line = num_wrapped(line, shapes.OUTPUT_COLUMNS)
        if piece and height + height_of_line > shapes.MAX_OUTPUT_LINES:
            yield _stream(piece, height, Glue.SHOULD)
            piece, height = [], 0
        piece.append(line)
        height += height_of_line
    if text.strip():
        yield _stream(piece, height, Glue.MUST)


def _stream(lines: Sequence[str], num_lines: int, glue: Glue) -> Shown:
    text = html.escape("\n".join(lines))
    height = num_lines * shapes.OUTPUT_LINE_PX + shapes.OUTPUT_MARGIN_PX
    return Shown(_cell(_bundle(f'<pre class="printed">{text}</pre>')), height, glue)


def _figure(output: NotebookNode) -> Iterator[Shown]:
    png = output.data["image/png"].replace("\n", "")
    reading = output.get("metadata", {}).get("image/png", {}).get("alt", "")
    width, height = shapes.figure_size_px(*png_size(base64.b64decode(png)))
    image = (
        f'<img width="{width}" height="{height}" alt="{html.escape(reading, quote=True)}" '
        f'src="data:image/png;base64,{png}">'
    )
    yield Shown(_cell(_bundle(image)), height + shapes.OUTPUT_MARGIN_PX, Glue.MUST)
    if output.data.get("text/plain", "").startswith(("[interactive]", "[live curve]")):
        yield from _text(f"Reading: {reading}" if reading else output.data["text/plain"])


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header of a PNG file."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _table(text: str) -> Iterator[Shown]:
    unbroken = _EXPONENT.sub("\u2011", text)  # a hyphen at which no line is broken
    head, body, end = _TABLE.match(unbroken).groups()  # type: ignore[union-attr]
    rows = _ROW.findall(body)
    layout = table_layout([_cell_texts(row) for row in [head, *rows]])
    head = head.replace("<table>", layout.opening(), 1)
    first_px, *heights_px = layout.heights_px
    for piece in _row_pieces(heights_px, first_px):
        shown = head + "".join(rows[k] for k in piece) + end
        height_px = first_px + sum(heights_px[k] for k in piece) + 2 * shapes.OUTPUT_MARGIN_PX
        yield Shown(_cell(_bundle(shown)), height_px)


def _row_pieces(heights_px: Sequence[int], head_px: int) -> Iterator[list[int]]:
    """Numbers of the rows that go on one slide, under a head and a caption."""
    limit_px = shapes.USABLE_PX - shapes.RUNNING_HEAD_PX - 3 * shapes.OUTPUT_LINE_PX - head_px
    piece: list[int] = []
    for number, height_px in enumerate(heights_px):
        if piece and height_px + sum(heights_px[k] for k in piece) > limit_px:
            yield piece
            piece = []
        piece.append(number)
    yield piece


def _cell_texts(row: str) -> list[str]:
    return [html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in _CELL.findall(row)]


def _html(text: str) -> Shown:
    """Any other HTML, in a box that scrolls where it is too tall."""
    lines = re.sub(r"<[^>]+>", "", text).strip("\n").split("\n")
    num_lines = sum(num_wrapped(line, shapes.SMALL_COLUMNS) for line in lines)
    height = min(num_lines * shapes.SMALL_LINE_PX + 34, shapes.MAX_BOX_PX)
    box = f'<div class="scrolls" tabindex="0">{text}</div>'
    return Shown(_cell(_bundle(box)), height + shapes.OUTPUT_MARGIN_PX)


def _bundle(text: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", data={"text/html": text})


def _cell(output: NotebookNode) -> NotebookNode:
    cell = nbformat.v4.new_code_cell("", outputs=[output])
    cell.metadata["transient"] = {"remove_source": True}
    return cell
