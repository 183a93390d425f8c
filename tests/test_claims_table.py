"""Claims in print and as a figure: sources, verdicts, guesses, links, escaped text, ranges."""

from __future__ import annotations

import html
import math
from dataclasses import replace

import pytest

from utils import claims_table
from utils.claims import find_claim, load_claims
from utils.claims_plot import KINDS, STYLES, draw_ranges, ranges_of, reading
from utils.claims_table import (
    WIDTH,
    compare_guesses,
    count_verdicts,
    print_findings,
    show_verdicts,
    source_text,
    verdict_text,
)
from utils.evidence.finding import HOLDS, ONLY_IF, OVERSTATED, Finding, Span, by_cases
from utils.plots import checked_reading, new_figure, png_of

CLAIMS = load_claims()
FINDINGS = {claim.number: Finding("found 1", claim.verdict, span=Span(1, 2)) for claim in CLAIMS}


def test_a_finding_in_print_says_source_evidence_and_verdict(capsys):
    found = print_findings(1, 16)
    printed = capsys.readouterr().out
    assert list(found) == [1, 16] and found[1].verdict == OVERSTATED
    assert "1. Training Llama-2-70B" in printed and "   source: 2.0 trillion tokens" in printed
    assert "   found: 6ND 8.40e+23" in printed and "   verdict: overstated. The tokens" in printed
    assert max(map(len, printed.splitlines())) <= WIDTH


def test_sentences():
    claim = find_claim(5)
    assert source_text(claim).endswith("(PyTorch blog, Huang, Tekur and Carilli; 2020-07-28, "
                                       "read at its source)")  # fmt: skip
    assert verdict_text(claim, FINDINGS[5]).startswith("holds only if the baseline is true fp32")
    assert verdict_text(claim, by_cases("e", {"a": True})).startswith("holds. the baseline")


def test_counts_keep_the_order_and_zeros():
    assert count_verdicts([by_cases("e", {"a": True})] * 2) == {
        "holds": 2, "holds only if": 0, "overstated": 0, "wrong": 0, "cannot be settled here": 0,
    }  # fmt: skip


def test_guesses(capsys):
    agreed = compare_guesses({12: HOLDS, 1: HOLDS, 5: ONLY_IF}, FINDINGS)
    assert agreed == 2 and "5 | 16 bits on GPUs | holds only if | holds only if" in (
        capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="'true' is no verdict; choose one of: holds, holds only"):
        compare_guesses({1: "true"}, FINDINGS)


def test_the_table_links_and_escapes(monkeypatch, capsys):
    shown = {}
    monkeypatch.setattr(claims_table, "publish", shown.update)
    odd = replace(CLAIMS[0], claim="a < b & <script>")
    show_verdicts([odd, *CLAIMS[1:]], FINDINGS, "All claims")
    page = shown["text/html"]
    assert capsys.readouterr().out == "All claims\n" and "<script>" not in page
    assert "a &lt; b &amp; &lt;script&gt;" in page
    for claim in CLAIMS:
        words = html.escape(f"lesson {claim.lesson_number}: {claim.section}")
        assert f'<a href="{html.escape(claim.link)}">{words}</a>' in page
    assert page.count("<tr>") == 22 and page.count("<b>holds only if</b>") == 12
    assert len(shown["text/plain"].splitlines()) == 22


def test_ranges_of_a_claim():
    ranges = ranges_of(find_claim(1), Finding("e 1", OVERSTATED, span=Span(8.4e23, 8.9e23)))
    assert list(ranges) == list(KINDS[:3]) and ranges["the article"] == Span(1, math.inf)
    assert ranges["computed here"].text() == "0.84 to 0.89"
    timed = ranges_of(find_claim(11), FINDINGS[11], Span(20, 22))
    assert timed["timed on this machine"] == Span(20, 22) and timed["the article"] == Span(15, 25)
    assert list(ranges_of(find_claim(14), FINDINGS[14])) == list(KINDS[1:3])


def test_the_figure_tells_kinds_apart_without_colour():
    assert len({marker for _, marker in STYLES.values()}) == len(KINDS) == len(STYLES)
    figure = new_figure(10.5, 5.2)
    draw_ranges(figure, CLAIMS, FINDINGS, {5: Span.of(0.5), 11: Span.of(20)})
    factors, percents = figure.get_axes()
    rows = [text.get_text().split()[0] for text in factors.get_yticklabels()]
    assert rows == ["1", "5", "6", "13", "14", "15", "20", "21"] and factors.get_xscale() == "log"
    assert [text.get_text().split()[0] for text in percents.get_yticklabels()] == [
        "10", "11", "16", "17",
    ]  # fmt: skip
    assert png_of(figure)[:4] == b"\x89PNG"
    drawn = {line.get_marker() for line in factors.get_lines()}
    assert {marker for _, marker in STYLES.values()} <= drawn


def test_the_reading_follows_the_table():
    sentence = checked_reading(reading(CLAIMS))
    assert "Of 8 claims with a number, 4 lie above all that their sources say (1, 5, 6, 16)" in (
        sentence
    )
    assert sentence.endswith("does not name is up to 36.6 (claim 20).")
    cheaper = [replace(each, sourced_low=20.0, sourced_high=20.0) if each.number == 16 else each
               for each in CLAIMS]  # fmt: skip
    assert "(1, 5, 6)" in reading(cheaper)
