"""The instructor's guide agrees with the course: minutes, answers, messages, links, commands."""

import re
from pathlib import Path

import nbformat
import pytest

from utils.build.budgets import heading_problems
from utils.build.rules import place_problems

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "notebooks/instructor_guide.md"
TEXT = GUIDE.read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title):
    """The text below a heading, up to the next one of any level."""
    return re.search(rf"^#+ {title}.*?\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]


def rows(text):
    """The rows of the pipe tables in a text, without heads and rules, as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = {k for k, row in enumerate(cells) if set("".join(row)) <= set("-:")}
    return [row for k, row in enumerate(cells) if k not in rules and k + 1 not in rules]


def minutes_of_lessons():
    """{lesson's file: its minutes} from the README's table."""
    found = re.findall(r"\(notebooks/(\d\d_\w+\.ipynb)\).*\| (\d+)(?: \+ \d+)? \| no", README)
    return {name: int(minutes) for name, minutes in found}


def minutes_of_exercises():
    """{exercise: its minutes} from the labs' sources."""
    found = {}
    for source in (ROOT / "sources").glob("lab_*.py"):
        card = r"## Exercise (\d\d\.\d).*?- (\d+) minutes"
        found |= dict(re.findall(card, source.read_text(encoding="utf-8"), re.DOTALL))
    return {name: int(minutes) for name, minutes in found.items()}


def stored_outputs(number):
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    return "".join(out.get("text", "") for c in cells for out in c.get("outputs", []))


@pytest.mark.parametrize(
    ("title", "sums"), [("Half a day", [240]), ("One day", [480]), ("Two days", [480, 480])]
)
def test_an_agenda_adds_up(title, sums):
    days = re.split(r"^\| Minutes.*\n", section(title), flags=re.MULTILINE)[1:]
    assert [sum(int(row[0]) for row in rows(f"| x |\n|--|\n{day}")) for day in days] == sums


def test_minutes_are_those_of_the_readme_and_of_the_labs():
    lessons, exercises = minutes_of_lessons(), minutes_of_exercises()
    assert len(lessons) == 12 and len(exercises) >= 45
    agenda = [
        row for title in ("Half a day", "One day", "Two days") for row in rows(section(title))
    ]
    seen = 0
    for minutes, what, *_ in agenda:
        if lesson := re.search(r"\((\d\d_\w+\.ipynb)\)(, section)?", what):
            whole = lessons[lesson[1]]
            assert int(minutes) < whole if lesson[2] else int(minutes) == whole, what
        elif named := re.findall(r"\d\d\.\d", what):
            assert int(minutes) == sum(exercises[name] for name in named), what
        seen += bool(lesson or named)
    assert seen >= 25


def test_the_hours_of_the_whole_course_are_those_of_the_table():
    pairs = re.findall(r"\| (\d+)(?: \+ (\d+))? \| no \|", README)
    hours = sum(int(lesson) + int(lab or 0) for lesson, lab in pairs) / 60
    assert f"about {hours:.0f} hours alone" in TEXT.replace("\n", " ")


@pytest.mark.parametrize("row", rows(section("Predictions")), ids=lambda row: row[1][:40])
def test_an_answer_is_what_the_lesson_prints(row):
    number, _, usual, answer, _ = row
    shown = stored_outputs(number)
    assert "⏱" in answer or answer in shown
    assert usual in shown or usual.replace(" of ", " rows of ") in shown


@pytest.mark.parametrize("row", rows(section("Labs")), ids=lambda row: row[0])
def test_a_quoted_message_is_one_that_the_tests_ask_of_that_check(row):
    exercise, quoted, _ = row
    files = ROOT.joinpath("tests").glob(f"*_{exercise[:2]}*.py")
    assert any(quoted.strip("`") in path.read_text(encoding="utf-8") for path in files)
    assert exercise in minutes_of_exercises()


def test_links_lead_to_files_and_sections_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (GUIDE.parent / target).is_file(), target
    pattern = r"\((\d\d_\w+)\.ipynb\), sections? ([\d, -]+)"
    for stem, listed in re.findall(pattern, TEXT):
        source = (ROOT / f"sources/{stem}.py").read_text(encoding="utf-8")
        last = max(map(int, re.findall(r"\d+", listed)))
        assert f"# ## {last}. " in source, f"{stem} has no section {last}"


def test_commands_exist_and_headings_are_in_order():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = re.findall(r"(?:`|&& |^ *)make ([a-z][a-z-]+)", TEXT, re.MULTILINE)
    assert {"venv", "check-env", "nbval", "grade", "slides", "lab", "my-labs"} <= set(names)
    for name in names:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(TEXT)])
    assert not heading_problems(notebook)
    assert "://" not in TEXT and not place_problems(TEXT, ROOT)
