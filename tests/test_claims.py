"""The table of claims: whole, sourced, and linked to notebooks and headings that exist."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import nbformat
import pytest

from utils.claims import GROUPS, NUM_CLAIMS, Claim, find_claim, load_claims
from utils.claims_evidence import EVIDENCE
from utils.data import FOLDER
from utils.evidence.finding import Span

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = load_claims()
TABLE = (FOLDER / "claims.csv").read_text(encoding="utf-8")
LESSON = ROOT / "notebooks" / "11_the_article_checked.ipynb"


def headings(stem: str) -> set[str]:
    """The second-level headings of a lesson's notebook."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return set(re.findall(r"^## (.+)$", prose, re.MULTILINE))


def test_all_rows_are_there_and_every_row_has_evidence():
    assert [claim.number for claim in CLAIMS] == list(range(1, NUM_CLAIMS + 1)) and NUM_CLAIMS == 21
    assert sorted(claim.evidence for claim in CLAIMS) == sorted(EVIDENCE)
    for claim in CLAIMS:
        assert claim.status in ("R", "R2", "C"), "nothing recalled may be printed as a fact"
        assert len(claim.source) > 8 and len(claim.says) > 20 and claim.condition
        assert date(2020, 1, 1) <= claim.date <= date(2026, 12, 31)
    assert {claim.group for claim in CLAIMS} == set(GROUPS)
    assert len({claim.short for claim in CLAIMS}) == NUM_CLAIMS


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"claim {claim.number}")
def test_the_linked_notebook_has_the_linked_heading(claim: Claim):
    assert (ROOT / "notebooks" / f"{claim.lesson}.ipynb").is_file()
    assert claim.section in headings(claim.lesson)
    file, _, anchor = claim.link.partition("#")
    assert file == f"{claim.lesson}.ipynb" and anchor.replace("-", " ") == (
        claim.section.replace("-", " ")
    )
    assert " " not in claim.link


def test_links_in_the_stored_lesson_lead_somewhere():
    notebook = nbformat.read(LESSON, as_version=4)
    shown = "\n".join(
        output["data"].get("text/html", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    )
    links = re.findall(r'<a href="([^"]+)">', shown)
    assert links == [claim.link for claim in CLAIMS]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#][^)]*)\)", prose):
        assert (LESSON.parent / target.partition("#")[0]).exists(), target
    anchors = {heading.replace(" ", "-") for heading in headings(LESSON.stem)}
    assert set(re.findall(r"\]\(#([^)]+)\)", prose)) <= anchors


def test_every_lesson_that_measured_something_is_linked():
    assert {claim.lesson_number for claim in CLAIMS} == {*(f"0{n}" for n in range(1, 10)), "11"}


def test_ranges():
    assert find_claim(1).claimed == Span(1e24, float("inf"))
    assert find_claim(6).claimed == Span(2, 3) and find_claim(5).claimed == Span(6, 6)
    assert find_claim(4).claimed is None and find_claim(4).sourced is None
    assert find_claim(18).is_open and find_claim(5).is_open and not find_claim(12).is_open


def test_what_the_sources_say_is_what_the_columns_hold():
    assert all(f"{find_claim(2).sourced.low:g}-" in text for text in (find_claim(2).says,))
    for number, words in ((2, "29-49 %"), (5, "1.5 to 5.5"), (6, "60 %"), (16, "2.1 %")):
        assert words in find_claim(number).says
    assert "2.3 to 26.6 %" in find_claim(17).says and "2.69 to 12.29" in find_claim(21).says


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("\n5,", "\n4,", "must hold the claims 1 to 21 in order, but it has 1, 2, 3, 4, 4, 6"),
        (",holds only if,the baseline", ",true,the baseline", "verdict is 'true'; one of holds"),
        (",C,01_the_bill", ",M,01_the_bill", "status is 'M'; one of R, R2, C"),
        ("none,,,,\n5", "none,1,2,,\n5", "a range needs a unit"),
        ("x,2,3,1.6,1.6", "x,3,2,1.6,1.6", "A span goes from low to high, not from 3.0 to 2.0"),
        ("x,2,3,1.6,1.6", "x,two,3,1.6,1.6", "'two' is no value for claimed_low"),
        (",same_flops,", ",,", "'' is no value for evidence"),
        ("\n21,", "\n22,", "number is 22; claims have the numbers 1 to 21"),
        (",evidence,", ",proof,", "the column evidence is missing"),
    ],
)
def test_a_damaged_table_is_refused_with_a_sentence(tmp_path, old, new, words):
    assert old in TABLE
    (tmp_path / "claims.csv").write_text(TABLE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        load_claims(tmp_path)
    assert "git checkout -- utils/data/claims.csv" in str(caught.value)


def test_a_missing_claim_is_named():
    with pytest.raises(ValueError, match="There is no claim 22; the numbers go from 1 to 21"):
        find_claim(22)
    assert replace(find_claim(3), number=21).number == 21
