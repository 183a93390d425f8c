"""The article's claims, and what became of them: one frozen `Claim` per line of claims.csv.

How it works: a line says what the article claims, what a primary source says (with source, date and
status), which lesson measured it, the verdict with its condition, and under which key
`utils.claims_evidence` computes the evidence. The verdict stands in the table so that it can be
read; the tests hold it against the computed one, and every link against the real notebooks.

Left out: the article's own words, for only copies of it could be read, one of them paraphrased by a
machine. Claims are given by their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from utils.data import FOLDER, read_table
from utils.evidence.finding import ONLY_IF, OPEN, VERDICTS, Span

NUM_CLAIMS = 21
GROUPS = (
    "cost of a model", "precision", "checkpointing", "many GPUs", "hardware and rent", "left out",
)  # fmt: skip
STATUSES = ("R", "R2", "C")  # read, second-hand, computed; nothing recalled
UNITS = ("x", "%", "FLOPs", "none")
ARTICLE = date(2024, 8, 17)  # the day it appeared, or the day after


@dataclass(frozen=True)
class Claim:
    """One claim. Ranges are in `unit`, and None where claim or source gives no number."""

    number: int
    group: str
    short: str  # a name for figures
    claim: str  # by its meaning
    says: str  # what the primary source says
    source: str
    date: date  # of the source, or of its reading where it has none
    status: str
    lesson: str  # the notebook that measured it, without suffix
    section: str  # its heading there, e.g. "7. Dollars"
    verdict: str
    condition: str  # only if what, what remains true, or what would settle it
    evidence: str  # key of utils.claims_evidence
    unit: str
    claimed_low: float | None
    claimed_high: float | None
    sourced_low: float | None
    sourced_high: float | None

    def __post_init__(self) -> None:
        choices = {"group": GROUPS, "status": STATUSES, "verdict": VERDICTS, "unit": UNITS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; one of {', '.join(known)}.")
        if not 1 <= self.number <= NUM_CLAIMS:
            raise ValueError(f"number is {self.number}; claims have the numbers 1 to {NUM_CLAIMS}.")
        for what in (self.claimed, self.sourced):
            if what is not None and self.unit == "none":
                raise ValueError("a range needs a unit: x, % or FLOPs.")

    @property
    def claimed(self) -> Span | None:
        """The article's range; an open end is infinite."""
        return _span(self.claimed_low, self.claimed_high)

    @property
    def sourced(self) -> Span | None:
        """The primary sources' range."""
        return _span(self.sourced_low, self.sourced_high)

    @property
    def link(self) -> str:
        """Notebook and heading as a relative address, e.g. "01_the_bill.ipynb#7.-Dollars"."""
        return f"{self.lesson}.ipynb#{self.section.replace(' ', '-')}"

    @property
    def lesson_number(self) -> str:
        """E.g. "01"."""
        return self.lesson[:2]

    @property
    def is_open(self) -> bool:
        """Whether the verdict needs its condition to mean anything."""
        return self.verdict in (ONLY_IF, OPEN)


def load_claims(folder: Path = FOLDER) -> tuple[Claim, ...]:
    """All claims by number. Raises ValueError for a damaged table, a gap or a repeated number."""
    claims = read_table("claims.csv", Claim, folder)
    numbers = [claim.number for claim in claims]
    if numbers != list(range(1, NUM_CLAIMS + 1)):
        raise ValueError(
            f"utils/data/claims.csv must hold the claims 1 to {NUM_CLAIMS} in order, but it has "
            f"{', '.join(map(str, numbers))}; `git checkout -- utils/data/claims.csv` brings back "
            "the course's own table."
        )
    return claims


def find_claim(number: int) -> Claim:
    """The claim of that number. Raises ValueError for another one."""
    claims = {claim.number: claim for claim in load_claims()}
    if number not in claims:
        raise ValueError(f"There is no claim {number!r}; the numbers go from 1 to {NUM_CLAIMS}.")
    return claims[number]


def _span(low: float | None, high: float | None) -> Span | None:
    if low is None and high is None:
        return None
    return Span(high if low is None else low, float("inf") if high is None else high)
