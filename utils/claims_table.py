"""The claims in print: source, finding and verdict of some, and one table of all with links.

How it works: `print_findings` settles claims now and prints what the source says, what was computed
and the verdict; `show_verdicts` is the one table of all claims, whose last column links to notebook
and section. `compare_guesses` holds a learner's verdicts against the computed ones.

Left out: any verdict of its own; all come from `utils.claims_evidence`.
"""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from utils.claims import Claim, find_claim
from utils.claims_evidence import settle
from utils.data import STATUS_WORDS
from utils.evidence.finding import VERDICTS, Finding
from utils.measured import _html_cell, publish, table

WIDTH = 96  # characters of a printed line
VERDICT_HEADERS = ("", "the article", "a primary source", "computed here", "verdict", "measured in")


def print_findings(*numbers: int) -> dict[int, Finding]:
    """Settle claims now; print source, evidence and verdict of each; returns the findings."""
    findings = {number: settle(number) for number in numbers}
    for number, finding in findings.items():
        claim = find_claim(number)
        _print_wrapped(f"{number}. {claim.claim}", "")
        _print_wrapped(source_text(claim), "   source: ")
        _print_wrapped(finding.evidence, "   found: ")
        _print_wrapped(verdict_text(claim, finding), "   verdict: ")
    return findings


def source_text(claim: Claim) -> str:
    """What the primary source says, which one it is, its date, and how far it can be trusted."""
    return f"{claim.says} ({claim.source}; {claim.date}, {STATUS_WORDS[claim.status]})"


def _print_wrapped(text: str, label: str) -> None:
    lead = " " * (len(label) or 3)
    print(textwrap.fill(text, WIDTH, initial_indent=label, subsequent_indent=lead))


def verdict_text(claim: Claim, finding: Finding) -> str:
    """The computed verdict with the table's condition, in one line."""
    joint = " " if finding.verdict == "holds only if" else ". "
    return f"{finding.verdict}{joint}{claim.condition}"


def count_verdicts(findings: Iterable[Finding]) -> dict[str, int]:
    """How often each verdict was reached, in the fixed order."""
    counts = Counter(finding.verdict for finding in findings)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def compare_guesses(guesses: Mapping[int, str], findings: Mapping[int, Finding]) -> int:
    """Print each guess beside the verdict; returns how many agree.

    Raises ValueError for a guess that is none of the five verdicts.
    """
    wrong = [guess for guess in guesses.values() if guess not in VERDICTS]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no verdict; choose one of: {', '.join(VERDICTS)}.")
    rows = [
        (number, find_claim(number).short, guess, findings[number].verdict)
        for number, guess in guesses.items()
    ]
    table(("", "claim", "you said", "verdict"), rows, "Your verdicts")
    return sum(guess == verdict for *_, guess, verdict in rows)


def show_verdicts(claims: Sequence[Claim], findings: Mapping[int, Finding], caption: str) -> None:
    """The table of all verdicts; the last column leads to the evidence."""
    rows = [_verdict_cells(claim, findings[claim.number]) for claim in claims]
    plain = [" | ".join(text for text, _ in row) for row in rows]
    print(caption)
    publish(
        {
            "text/html": _html(rows),
            "text/plain": "\n".join([" | ".join(VERDICT_HEADERS), *plain]),
        }
    )


def _verdict_cells(claim: Claim, finding: Finding) -> list[tuple[str, str]]:
    """Each cell as text and as HTML: the verdict's word is bold, the last cell a link."""
    words = (str(claim.number), claim.claim, source_text(claim), finding.evidence)
    verdict, where = verdict_text(claim, finding), f"lesson {claim.lesson_number}: {claim.section}"
    rest = html.escape(verdict.removeprefix(finding.verdict))
    link = html.escape(claim.link, quote=True)
    return [
        *((text, html.escape(text)) for text in words),
        (verdict, f"<b>{html.escape(finding.verdict)}</b>{rest}"),
        (where, f'<a href="{link}">{html.escape(where)}</a>'),
    ]


def _html(rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    left = 'style="text-align: left"'
    head = "".join(_html_cell("th", text, "left") for text in VERDICT_HEADERS)
    lines = ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for row in rows:
        cells = "".join(f"<td {left}>{shown}</td>" for _, shown in row)
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])
