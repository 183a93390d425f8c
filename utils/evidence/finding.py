"""How a verdict follows from evidence: three rules, and no way to type a verdict.

How it works: an evidence function hands its numbers or cases to a rule, and the rule makes the
`Finding`. `by_range` compares a claimed with a found range, `by_cases` counts the cases in which
the claim is true, `by_rivals` asks whether what the article leaves out is larger than what it
names. Evidence is the same on every machine: nothing here was timed.

Left out: how much a case weighs. One case that fails is enough for "holds only if".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

HOLDS, ONLY_IF, OVERSTATED = "holds", "holds only if", "overstated"
WRONG, OPEN = "wrong", "cannot be settled here"
VERDICTS = (HOLDS, ONLY_IF, OVERSTATED, WRONG, OPEN)


@dataclass(frozen=True)
class Span:
    """From `low` to `high`; one number is a span of no width. Raises ValueError if high < low."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"A span goes from low to high, not from {self.low} to {self.high}.")

    @classmethod
    def of(cls, *values: float) -> Span:
        """The smallest span that holds all of these."""
        return cls(min(values), max(values))

    def text(self, unit: str = "", digits: int = 2) -> str:
        """E.g. "2 to 3 x" or "at least 10", with so many significant digits at most."""
        low, high = f"{self.low:,.{digits}g}", f"{self.high:,.{digits}g}"
        if math.isinf(self.high):
            return f"at least {low} {unit}".strip()
        return f"{low if low == high else f'{low} to {high}'} {unit}".strip()


@dataclass(frozen=True)
class Finding:
    """What was found about one claim; made by a rule below, which also gives the verdict."""

    evidence: str  # in one line, with its numbers
    verdict: str
    cases: Mapping[str, bool] = field(default_factory=dict)  # in which the claim is true or not
    span: Span | None = None  # found here, in the claim's own unit

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS or not self.evidence.strip():
            raise ValueError("A finding needs evidence and one of the five verdicts.")


def by_range(evidence: str, claimed: Span, found: Span, here: Span | None = None) -> Finding:
    """All of the found range below the claim: overstated. Within it: holds. Else: holds only if.

    `here` is what this course found, where `found` is what others published.
    """
    if found.high < claimed.low:
        verdict = OVERSTATED
    elif claimed.low <= found.low and found.high <= claimed.high:
        verdict = HOLDS
    else:
        verdict = ONLY_IF
    return Finding(evidence, verdict, span=here or found)


def by_cases(evidence: str, cases: Mapping[str, bool], here: Span | None = None) -> Finding:
    """True in all cases: holds. In some: holds only if. In none: wrong. No case: not settled."""
    if not cases:
        verdict = OPEN
    elif all(cases.values()):
        verdict = HOLDS
    else:
        verdict = ONLY_IF if any(cases.values()) else WRONG
    return Finding(evidence, verdict, dict(cases), here)


def by_rivals(
    evidence: str,
    named: Mapping[str, float],
    left_out: Mapping[str, float],
    here: Span | None = None,
) -> Finding:
    """Factors: something left out beats all that is named: overstated. Otherwise: holds."""
    is_beaten = max(left_out.values()) > max(named.values())
    return Finding(evidence, OVERSTATED if is_beaten else HOLDS, span=here)
