"""Pack blocks into slides: a section starts one, what belongs together stays together.

The rule: a heading of level 1 or 2 starts a section (the right arrow goes from one to the next). A
group of blocks that hold on to each other, say question, code, output, goes on the slide if it
fits, else on a new one, and only if it fits on none is it divided at its weakest hold. After a
cell that asks for a prediction the slide ends, so that the room answers before it sees. A
section's second and later slides repeat its title, small.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

import nbformat
from nbformat import NotebookNode

from utils.slides.blocks import Block, lesson_blocks
from utils.slides.shapes import RUNNING_HEAD_PX, USABLE_PX, Glue

Slide = list[Block]


def sections(blocks: Sequence[Block]) -> list[list[Slide]]:
    """The slides of each section; every slide is at most `USABLE_PX` tall if its blocks are."""
    found: list[list[Block]] = []
    for block in blocks:
        if not found or block.level in (1, 2):
            found.append([])
        found[-1].append(block)
    return [section_slides(section) for section in found]


def section_slides(blocks: Sequence[Block]) -> list[Slide]:
    """Pack the blocks of one section."""
    slides: list[Slide] = [[]]
    _place(slides, blocks, Glue.SHOULD)
    return [slide for slide in slides if slide]


def _place(slides: list[Slide], blocks: Sequence[Block], hold: int) -> None:
    for group in _groups(blocks, hold):
        if slides[-1] and slides[-1][-1].ends_slide:
            slides.append([])
        if _fits(slides[-1], group, len(slides) > 1):
            slides[-1] += group
        elif _fits([], group, True) or hold > Glue.MUST:
            slides.append(group)
        else:
            _place(slides, group, hold + 1)


def _groups(blocks: Sequence[Block], hold: int) -> Iterator[Slide]:
    """Runs of blocks in which each but the last holds on to the next one at least so firmly."""
    group: Slide = []
    for block in blocks:
        group.append(block)
        if block.glue < hold:
            yield group
            group = []
    if group:
        yield group


def _fits(slide: Slide, group: Slide, has_running_head: bool) -> bool:
    height_px = sum(block.height_px for block in [*slide, *group])
    return height_px + RUNNING_HEAD_PX * has_running_head <= USABLE_PX


def deck(notebook: NotebookNode) -> NotebookNode:
    """The lesson as a notebook whose cells say on which slide they stand."""
    slides = nbformat.v4.new_notebook(metadata=notebook.metadata)
    for section in sections(lesson_blocks(notebook)):
        title = _title(section[0][0])
        for number, slide in enumerate(section):
            cells = [block.cell for block in slide]
            if number and title:
                cells.insert(0, _running_head(title))
            _mark(cells, "subslide" if number else "slide")
            slides.cells += cells
    return slides


def _title(block: Block) -> str:
    return re.sub(r"^#+\s*|[`*]", "", block.cell.source) if block.level else ""


def _running_head(title: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(f'<p class="running-head">{html.escape(title)}</p>')


def _mark(cells: Sequence[NotebookNode], first: str) -> None:
    for number, cell in enumerate(cells):
        cell.metadata["slideshow"] = {"slide_type": "-" if number else first}
