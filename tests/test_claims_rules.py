"""The three rules that make a verdict, and the spans that they compare."""

from __future__ import annotations

import pytest

from utils.evidence.finding import (
    HOLDS,
    ONLY_IF,
    OPEN,
    OVERSTATED,
    WRONG,
    Finding,
    Span,
    by_cases,
    by_range,
    by_rivals,
)


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        ({"a": True, "b": True}, HOLDS),
        ({"a": True, "b": False}, ONLY_IF),
        ({"a": False}, WRONG),
        ({}, OPEN),
    ],
)
def test_cases(cases, verdict):
    assert by_cases("evidence", cases).verdict == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Span(10, 12), HOLDS),
        (Span(10, 25), HOLDS),
        (Span(9, 12), ONLY_IF),
        (Span(12, 26), ONLY_IF),
        (Span(30, 40), ONLY_IF),
        (Span(1, 9.9), OVERSTATED),
    ],
)
def test_ranges(found, verdict):
    assert by_range("evidence", Span(10, 25), found).verdict == verdict


def test_rivals_and_bad_findings():
    assert by_rivals("evidence", {"a": 10}, {"b": 36}).verdict == OVERSTATED
    assert by_rivals("evidence", {"a": 10}, {"b": 9, "c": 2}).verdict == HOLDS
    with pytest.raises(ValueError, match="one of the five verdicts"):
        Finding("evidence", "true")
    with pytest.raises(ValueError, match="needs evidence"):
        by_cases(" ", {"a": True})


def test_spans_as_text():
    assert Span(2, 3).text("x") == "2 to 3 x" and Span.of(0.75, 83.2).text("%") == "0.75 to 83 %"
    assert Span(1e24, float("inf")).text() == "at least 1e+24" and Span.of(2.1).text() == "2.1"
