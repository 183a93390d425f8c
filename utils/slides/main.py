"""Write one HTML deck for each lesson: `python -m utils.slides [--only 01_the_bill]`.

How it works: the stored notebooks, outputs and figures included, are packed into slides
(`utils.slides.pack`) and written by nbconvert's exporter, with a template that loads nothing from a
network. reveal.js comes from an installed package and is copied beside the decks; so the folder
`slides/` works from a disk, a stick or any web server. Nothing is run.

Left out: labs (a room works in them), formulas in TeX and live widgets.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbconvert.exporters import SlidesExporter

from utils.console import print_what_it_can
from utils.slides.pack import deck
from utils.slides.shapes import HEIGHT_PX, WIDTH_PX

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(__file__).parent / "template"
_REVEAL_PARTS = ("LICENSE", "dist/reveal.css", "dist/reveal.js", "dist/theme/white.css")
_TO_LESSON = re.compile(r'href="(\d\d_\w+)\.ipynb')  # from deck to deck
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Slides</title></head><body><main>
<h1>How do I train a model without going broke?</h1>
<p>Right arrow: next section. Space: next slide. Esc: overview. F: full screen.</p>
<ul>
{items}
</ul></main></body></html>
"""


class SlidesError(Exception):
    """One sentence: what is wrong and what to do."""


def reveal_folder() -> Path:
    """Where reveal.js is installed. Raises SlidesError if it is not."""
    spec = find_spec("sphinx_revealjs")
    folder = Path(spec.origin).parent / "_static" / "revealjs" if spec and spec.origin else None
    if folder is None or not all((folder / part).is_file() for part in _REVEAL_PARTS):
        raise SlidesError("reveal.js is not installed: run `make slides`, which adds it.")
    return folder


def lessons(root: Path, only: Sequence[str] = ()) -> list[Path]:
    """The lessons' notebooks, or those named. Raises SlidesError for an unknown name or none."""
    found = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    wanted = [name.removesuffix(".ipynb") for name in only]
    unknown = sorted(set(wanted) - {path.stem for path in found})
    if unknown:
        names = ", ".join(path.stem for path in found) or "notebooks/, which is empty"
        raise SlidesError(f"There is no lesson {', '.join(unknown)}: --only takes {names}.")
    if not found:
        raise SlidesError(f"There are no lessons in {root / 'notebooks'}; run `make build` first.")
    return [path for path in found if not wanted or path.stem in wanted]


def deck_html(lesson: Path) -> str:
    """The page of one lesson. Raises SlidesError if the file is no notebook."""
    try:
        notebook = nbformat.read(lesson, as_version=4)
        slides = deck(notebook)
    except (OSError, ValueError, SyntaxError, nbformat.ValidationError) as error:
        raise SlidesError(
            f"{lesson.name} cannot be read ({error}); run `make build` to make it again."
        ) from None
    exporter = SlidesExporter(
        template_name="course",
        extra_template_basedirs=[str(TEMPLATES)],
        reveal_url_prefix="reveal",
        reveal_theme="white",
        reveal_width=str(WIDTH_PX),
        reveal_height=str(HEIGHT_PX),
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    page, _ = exporter.from_notebook_node(slides, {"metadata": {"name": lesson.stem}})
    return _TO_LESSON.sub(r'href="\1.html', page)


def write_slides(root: Path = ROOT, to: Path | str = "slides", only: Sequence[str] = ()) -> Path:
    """Write the decks, an index and reveal.js into `to`, and return it.

    Raises SlidesError or OSError; then no deck has changed.
    """
    source, folder = reveal_folder(), (root / to).resolve()
    pages = {f"{path.stem}.html": deck_html(path) for path in lessons(root, only)}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as name:
        staged = Path(name)
        for file_name, page in pages.items():
            (staged / file_name).write_bytes(page.encode("utf-8"))
        for file_name in pages:
            os.replace(staged / file_name, folder / file_name)
    for part in _REVEAL_PARTS:
        (folder / "reveal" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part, folder / "reveal" / part)
    shutil.copytree(
        source / "dist/theme/fonts", folder / "reveal/dist/theme/fonts", dirs_exist_ok=True
    )
    _write_index(folder)
    return folder


def _write_index(folder: Path) -> None:
    names = sorted(path.stem for path in folder.glob("[0-9][0-9]_*.html"))
    items = (f'<li><a href="{n}.html">{html.escape(n.replace("_", " "))}</a></li>' for n in names)
    (folder / "index.html").write_bytes(_PAGE.format(items="\n".join(items)).encode("utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.slides", description="One deck of slides for each lesson."
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="LESSON", help="e.g. 01_the_bill"
    )
    parser.add_argument("--to", default="slides", metavar="DIR", help="default: slides")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    print_what_it_can()
    try:
        folder = write_slides(options.root.resolve(), options.to, options.only)
    except SlidesError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The slides could not be written: {error}.", file=sys.stderr)
        return 1
    print(f"The decks are in {folder}; open its index.html.")
    return 0
