"""Slides: where they break, what is left out, and that nothing of a lesson gets lost on the way."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from utils.slides.blocks import code_blocks, lesson_blocks, prose_blocks, without_imports
from utils.slides.pack import deck, sections
from utils.slides.shapes import MAX_CODE_LINES, RUNNING_HEAD_PX, USABLE_PX, figure_size_px
from utils.slides.tables import table_layout

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SETUP = 'import sys\nsys.path.insert(0, "..")'


def code(source, *outputs):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs))


def prose(text):
    return nbformat.v4.new_markdown_cell(text)


def printed(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def html(text):
    return nbformat.v4.new_output("display_data", data={"text/html": text})


def picture(width, height, plain="<Figure>", alt="A line that rises."):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": plain}
    return nbformat.v4.new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})


def slides_of(*cells):
    """For each section its slides, each a list of texts: sources, else what an output shows."""
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    return [[[text_of(b) for b in s] for s in section] for section in found(notebook)]


def found(notebook):
    return sections(lesson_blocks(notebook))


def text_of(block):
    return block.cell.source or re.sub(r"<[^>]+>", "", block.cell.outputs[0].data["text/html"])


def table_html(num_rows, cell="1.00"):
    row = f"<tr><td>{cell}</td><td>x</td></tr>\n"
    return (
        "<table>\n<thead><tr><th>a</th><th>b</th></tr></thead>\n<tbody>\n"
        f"{row * num_rows}</tbody>\n</table>"
    )


def test_headings_start_sections_also_in_the_middle_of_a_cell():
    shown = slides_of(prose("# A\n\none\n\n## 1. B\n\ntwo"), prose("three\n\n### c\n\nfour"))
    assert shown == [[["# A", "one"]], [["## 1. B", "two", "three", "### c", "four"]]]


def test_the_setup_its_announcement_and_imports_are_left_out():
    cells = [prose("# A\n\nStart.\n\nThe usual first cell:"), code(SETUP)]
    cells.append(code("from a import b\nimport c\n\nb(c)", printed("3\n")))
    assert slides_of(*cells) == [[["# A", "Start.", "b(c)", "3"]]]
    assert code_blocks(code("import torch")) == []
    assert without_imports("x = 1\nimport late") == "x = 1\nimport late"
    assert slides_of(prose("# A"), code(SETUP)) == [[["# A"]]]


def test_the_room_predicts_before_it_sees():
    asked = code("guess_bytes = 80e9  # your prediction")
    shown = slides_of(prose("## A"), asked, prose("Now look:"), code("reveal(guess_bytes)"))
    assert shown == [[["## A", asked.source], ["Now look:", "reveal(guess_bytes)"]]]


def test_question_code_and_output_move_together_to_a_slide_where_they_fit():
    filler = code("\n".join(["a = 1"] * 15))
    shown = slides_of(
        prose("## A"), filler, prose("How many?"), code("\n".join(["b"] * 8), printed("7"))
    )
    assert [len(slide) for slide in shown[0]] == [2, 3]
    assert shown[0][1][0] == "How many?" and shown[0][1][2] == "7"


def test_a_caption_stays_with_its_table_when_a_group_fits_on_no_slide():
    tall = code("\n".join(["a = 1"] * 20), printed("Caption"), html(table_html(12)))
    first, second = slides_of(prose("## A\n\nLook:"), tall)[0]
    assert first == ["## A", "Look:", tall.source]
    assert second[0] == "Caption" and second[1].startswith("\nab")


def test_long_code_text_and_tables_are_cut_and_nothing_is_lost():
    lines = [f"line_{k} = {k}" if k % 7 else "" for k in range(1, 80)]
    numbers = "\n".join(f"value {k}" for k in range(90))
    cell = code("\n".join(lines), printed(numbers), html(table_html(60)))
    slides = found(nbformat.v4.new_notebook(cells=[prose("## A"), cell]))[0]
    texts = [text_of(block) for slide in slides for block in slide]
    everything = "\n".join(texts)
    assert [line for line in lines if line] == re.findall(r"line_\d+ = \d+", everything)
    assert numbers.split("\n") == re.findall(r"value \d+", everything)
    assert everything.count("1.00") == 60 and everything.count("\nab") >= 2
    assert max(len(text.splitlines()) for text in texts if "line_" in text) <= MAX_CODE_LINES
    assert all(text.splitlines()[0].startswith("line") for text in texts if "line_" in text)


def test_an_interactive_figure_brings_its_reading_and_every_figure_its_alternative_text():
    live = code("explore()", picture(600, 300, plain="[interactive] title"))
    blocks = lesson_blocks(nbformat.v4.new_notebook(cells=[live]))
    page = blocks[1].cell.outputs[0].data["text/html"]
    assert 'alt="A line that rises."' in page and 'width="840" height="420"' in page
    assert text_of(blocks[2]) == "Reading: A line that rises."
    still = code("show()", picture(600, 300))
    assert len(lesson_blocks(nbformat.v4.new_notebook(cells=[still]))) == 2
    assert figure_size_px(2400, 600) == (1216, 304)


def test_fenced_code_and_details_are_not_cut_at_their_blank_lines():
    fenced = "```python\na\n\n# no heading\n```"
    details = "<details><summary>More</summary>\n\ntext\n\n</details>"
    parts = [b.cell.source for b in prose_blocks(f"{fenced}\n\n{details}\n\nend")]
    assert parts == [fenced, details, "end"]


def test_a_table_is_set_smaller_before_it_is_wider_than_the_slide():
    few = table_layout([["system", "bytes"], ["ours", "1"]])
    many = table_layout([["a long word"] * 14, ["1,000,000"] * 14])
    assert few.font_px == 20 and few.heights_px == (37, 37)
    assert many.font_px < few.font_px and sum(many.widths_px) <= 1216


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_slide_of_every_lesson_fits_and_repeats_its_section(path):
    notebook = nbformat.read(path, as_version=4)
    for section in found(notebook):
        for number, slide in enumerate(section):
            height_px = sum(block.height_px for block in slide) + RUNNING_HEAD_PX * bool(number)
            assert height_px <= USABLE_PX, text_of(slide[0])
    titles = re.findall(r"^## (.+)$", "\n".join(c.source for c in notebook.cells), re.MULTILINE)
    kinds = [c.metadata["slideshow"]["slide_type"] for c in deck(notebook).cells]
    assert kinds.count("slide") == len(titles) + 1 and kinds[0] == "slide"
    heads = sum("running-head" in cell.source for cell in deck(notebook).cells)
    assert heads == kinds.count("subslide")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_figure_and_printed_word_of_a_lesson_is_on_a_slide(path):
    notebook = nbformat.read(path, as_version=4)
    shown = "".join(str(c.get("outputs", "")) for c in deck(notebook).cells)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert shown.count("<img ") == pictures
    for output in outputs:
        for word in re.findall(r"[A-Za-z]{4,}", output.get("text", "")):
            assert word in shown


def test_lessons_have_no_formula_or_diagram_that_the_decks_would_show_as_text():
    for path in LESSONS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                assert not re.search(r"\$\$|\\\(|\\\[|```mermaid", cell.source), path.name
