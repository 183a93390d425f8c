"""Rules for pages that everybody can read: sentences, an empty list when all is well.

How it works: a page is given as its parts (`tests/page_parts.py`), a notebook as it is stored.
Left out: what only a browser knows, such as focus and keyboard (`tests/browser/`).
"""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nbformat import NotebookNode
from PIL import Image

from tests.page_parts import Page, Part
from utils.plot_style import contrast

SAYS_NOTHING = {
    *("", "here", "click here", "this", "this page", "link", "this link", "more", "read more"),
    *("see", "see here", "page", "there", "it", "that", "notebook", "file", "source", "website"),
}
DARK_GROUND = "#111111"  # JupyterLab's, behind outputs that set no ground of their own
_ADDRESS = re.compile(r"(https?:)?//|www\.|\w+\.(ipynb|html|py|org|com)\b")
_FILE_NAME = re.compile(r"\S+\.(png|jpe?g|svg|gif)", re.IGNORECASE)
MIN_ALT_WORDS = 4
SCOPES = ("col", "row", "colgroup", "rowgroup")


def heading_problems(page: Page) -> list[str]:
    """One first-level heading, before all others; no level is skipped and none is empty."""
    levels = [int(heading.tag[1]) for heading in page.headings]
    found = [f"heading {k} is empty" for k, h in enumerate(page.headings, 1) if not h.words]
    if levels.count(1) != 1 or levels[0] != 1:
        found.append(f"there are {levels.count(1)} first-level headings; one is needed, at the top")
    for before, heading in zip(levels, page.headings[1:], strict=False):
        if int(heading.tag[1]) > before + 1:
            found.append(f"`{heading.words}` skips from level {before} to {heading.tag[1]}")
    return found


def link_problems(page: Page) -> list[str]:
    """The words of a link say where it leads, also when they are read alone."""
    found = []
    for link in page.links:
        words = link.words.strip(" .,:;`").lower()
        if words in SAYS_NOTHING or _ADDRESS.match(words):
            found.append(f"the link `{link.words}` to {link.attributes.get('href')} says nothing")
    return found


def target_problems(page: Page, folder: Path, anchors_in: Callable[[Path], set[str]]) -> list[str]:
    """What a link leads to is there: a file beside `folder`'s pages, and the anchor in it.

    `anchors_in` returns the anchors of another page.
    """
    found = []
    for link in page.links:
        href = link.attributes.get("href", "")
        parts = urlsplit(href)
        if parts.scheme or parts.netloc:
            continue
        target = (folder / unquote(parts.path)).resolve()
        if parts.path and not target.exists():
            found.append(f"the link `{link.words}` leads to {href}, which is not there")
        elif parts.fragment:
            anchors = anchors_in(target) if parts.path else page.anchors
            if unquote(parts.fragment) not in anchors:
                found.append(f"the link `{link.words}` leads to {href}: no such heading")
    return found


def image_problems(page: Page) -> list[str]:
    """An image has an alternative text that says what it shows."""
    return [
        f"an image has the alternative text `{image.words}`"
        for image in page.images
        if len(image.words.split()) < MIN_ALT_WORDS or _FILE_NAME.fullmatch(image.words)
    ]


def table_problems(page: Page) -> list[str]:
    """A table has a head whose cells are not empty, and say that they are a column's or a row's."""
    heads = [cell for cell in page.cells if cell.tag == "th"]
    found = ["a table has no head"] * (bool(page.tables) and not heads)
    found += ["a head cell is empty" for cell in heads if not cell.words]
    bare = [cell.words for cell in heads if cell.attributes.get("scope") not in SCOPES]
    return [*found, f"{len(bare)} head cells have no scope, first `{bare[0]}`"] if bare else found


def colour_problems(page: Page) -> list[str]:
    """Text in a colour of its own is readable on white and in the dark, or brings its ground."""
    return [sentence for part in page.styled for sentence in _style_problems(part)]


def _style_problems(part: Part) -> list[str]:
    style = dict(
        (each.strip().lower() for each in declaration.split(":", 1))
        for declaration in part.attributes["style"].split(";")
        if ":" in declaration
    )
    ink, ground = style.get("color"), style.get("background", style.get("background-color"))
    if ground and not ink:
        return [f"<{part.tag}> sets a ground and no colour of text: unreadable in a dark page"]
    grounds = [ground] if ground else ["#ffffff", DARK_GROUND]
    poor = [each for each in grounds if ink and contrast(ink, each) < 4.5]
    return [f"<{part.tag}> has text in {ink} on {each}: a contrast below 4.5" for each in poor]


def language_problems(page: Page) -> list[str]:
    """A page says its language and has a title."""
    tags = {part.tag: part for part in page.others}
    language = tags["html"].attributes.get("lang", "") if "html" in tags else ""
    found = [] if language == "en" else [f"the language is `{language}`, not en"]
    title = tags["title"].words if "title" in tags else ""
    return found if title else [*found, "the page has no title"]


def picture_problems(notebook: NotebookNode) -> list[str]:
    """Pictures of cells: opaque, each with a text twin and an alternative text of its own."""
    found, texts, twins = [], Counter(), Counter()
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" not in data:
                continue
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            twin = data.get("text/plain", "")
            texts[alt], twins[twin] = texts[alt] + 1, twins[twin] + 1
            if len(alt.split()) < MIN_ALT_WORDS or _FILE_NAME.fullmatch(alt):
                found.append(f"cell {number}: a picture has the alternative text `{alt}`")
            if not re.match(r"\[(figure|interactive|live curve)\] \w", twin):
                found.append(f"cell {number}: a picture's text twin is `{twin}`")
            picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
            if picture.mode != "RGB" or "transparency" in picture.info:
                found.append(f"cell {number}: a picture is not opaque ({picture.mode})")
    for counted, words in ((texts, "alternative text"), (twins, "text twin")):
        found += [f"{n} pictures have the {words} `{text}`" for text, n in counted.items() if n > 1]
    return found


def caption_problems(notebook: NotebookNode) -> list[str]:
    """A table in a cell's outputs stands right below a printed line that names it."""
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        outputs = cell.get("outputs", [])
        for before, output in zip([None, *outputs], outputs, strict=False):
            if "<table" in output.get("data", {}).get("text/html", ""):
                lines = (before or {}).get("text", "").rstrip("\n").split("\n")
                if not lines[-1].strip():
                    found.append(f"cell {number}: a table has no caption")
    return found
