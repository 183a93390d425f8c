"""The command behind `make slides`: what it writes, what it refuses, and in which words."""

import re

import nbformat
import pytest

from utils.slides import main as slides_main
from utils.slides.main import SlidesError, lessons, main, write_slides


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder with a lesson, and a stand-in for the installed reveal.js."""
    (tmp_path / "notebooks").mkdir()
    for part in (*slides_main._REVEAL_PARTS, "dist/theme/fonts/font"):
        (tmp_path / "installed" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "installed" / part).write_text(part)
    monkeypatch.setattr(slides_main, "reveal_folder", lambda: tmp_path / "installed")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(
                "# A & B\n\n[next](02_b.ipynb#c), [lab](../labs/lab_01_a.ipynb)"
            )
        ]
    )
    nbformat.write(notebook, tmp_path / "notebooks/01_a.ipynb")
    return tmp_path


def test_a_deck_names_nothing_outside_of_its_folder(course):
    folder = write_slides(course)
    page = (folder / "01_a.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|link)[^>]+(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3 and all((folder / name).is_file() for name in loaded)
    assert not re.search(
        r"""(?:src|href)=["']https?:|@import|import .* from|url\(["']?http""", page
    )
    assert 'href="02_b.html#c"' in page and 'href="../labs/lab_01_a.ipynb"' in page
    assert "01_a.html" in (folder / "index.html").read_text(encoding="utf-8")
    assert not list(folder.glob(".build-*"))


def test_a_name_a_missing_lesson_and_a_broken_one_get_a_sentence(course, capsys):
    with pytest.raises(SlidesError, match=r"no lesson 02_b: --only takes 01_a\."):
        lessons(course, ["02_b"])
    with pytest.raises(SlidesError, match="run `make build` first"):
        lessons(course / "installed")
    write_slides(course)
    before = (course / "slides/01_a.html").read_bytes()
    (course / "notebooks/01_a.ipynb").write_text("{")
    assert main(["--root", str(course)]) == 1
    assert "01_a.ipynb cannot be read" in capsys.readouterr().err
    assert (course / "slides/01_a.html").read_bytes() == before


def test_a_folder_that_cannot_be_written_gets_a_sentence(course, capsys):
    (course / "slides").write_text("a file")
    assert main(["--root", str(course)]) == 1
    assert "slides could not be written" in capsys.readouterr().err


def test_without_reveal_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(slides_main, "find_spec", lambda name: None)
    with pytest.raises(SlidesError, match="run `make slides`"):
        slides_main.reveal_folder()
