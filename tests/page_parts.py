"""What a page of HTML is made of: headings, links, images, tables, and the anchors in it.

How it works: Python's own HTML parser walks the page once and notes each part. Prose of a notebook
is turned into HTML first, by nbconvert, whose anchors of headings are JupyterLab's.

Left out: style sheets, scripts, and where on the page a part ends up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat import NotebookNode

PILCROW = "\u00b6"  # nbconvert's link from a heading to itself


@dataclass
class Part:
    """A tag, its attributes, and the words inside it (of an image: its alternative text)."""

    tag: str
    attributes: dict[str, str]
    words: str = ""


@dataclass
class Page:
    """The parts in their order; `cells` are the head and data cells of all tables."""

    headings: list[Part] = field(default_factory=list)
    links: list[Part] = field(default_factory=list)
    images: list[Part] = field(default_factory=list)
    cells: list[Part] = field(default_factory=list)
    tables: list[Part] = field(default_factory=list)
    others: list[Part] = field(default_factory=list)  # html, title, captions
    styled: list[Part] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


_LISTS = {
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "headings"),
    **{"a": "links", "img": "images", "th": "cells", "td": "cells", "table": "tables"},
    **dict.fromkeys(("html", "title", "caption"), "others"),
}
_WITH_WORDS = {"a", "th", "td", "title", "caption", "h1", "h2", "h3", "h4", "h5", "h6"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page, self._open = Page(), []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attributes}
        part = Part(tag, named, named.get("alt", "") if tag == "img" else "")
        if tag in _LISTS:
            getattr(self.page, _LISTS[tag]).append(part)
        if "style" in named:
            self.page.styled.append(part)
        self.page.anchors |= {named[key] for key in ("id", "name") if named.get(key)}
        if tag in _WITH_WORDS:
            self._open.append(part)
        elif tag == "img":
            self.handle_data(part.words)

    def handle_endtag(self, tag: str) -> None:
        for part in reversed(self._open):
            if part.tag == tag:
                self._open.remove(part)
                part.words = " ".join(part.words.replace(PILCROW, "").split())
                return

    def handle_data(self, data: str) -> None:
        for part in self._open:
            part.words += data


def page_of(html: str) -> Page:
    """The parts of a page or of a piece of one."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    page = reader.page
    page.links = [link for link in page.links if link.attributes.get("class") != "anchor-link"]
    return page


def prose_of(notebook: NotebookNode) -> str:
    """The prose of a notebook as HTML."""
    prose = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return "\n".join(markdown2html_mistune(text) for text in prose)


def outputs_of(notebook: NotebookNode) -> str:
    """The HTML that a notebook's cells show."""
    outputs = (o for cell in notebook.cells for o in cell.get("outputs", []))
    return "\n".join(output.get("data", {}).get("text/html", "") for output in outputs)
