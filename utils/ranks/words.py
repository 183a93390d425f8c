"""The words of a report: ranks, lines, collectives and deaths, the same on every run.

Left out: what a report says (`utils.ranks.report`).
"""

from __future__ import annotations

import linecache
import re
import signal
import tempfile
from collections.abc import Callable, Sequence

from utils.checks.helpers import one_line
from utils.ranks.page import Noted
from utils.ranks.whereabouts import Line


def grouped(clauses: Sequence[str]) -> list[str]:
    """One sentence for each clause, with all ranks that share it; "" says nothing."""
    ranks: dict[str, list[int]] = {}
    for rank, clause in enumerate(clauses):
        ranks.setdefault(clause, []).append(rank)
    return [f"{names(who)} {_agreeing(clause, who)}." for clause, who in ranks.items() if clause]


def _agreeing(clause: str, ranks: Sequence[int]) -> str:
    """Of several ranks, "were" instead of "was"."""
    return "were " + clause[4:] if len(ranks) > 1 and clause.startswith("was ") else clause


def death_text(exit_code: int) -> str:
    """How a process ended that did not report: a signal is negative."""
    if exit_code >= 0:
        return f"ended itself with exit code {exit_code}, as os._exit does."
    kind = signal.Signals(-exit_code).name
    if kind == "SIGKILL":
        return "was killed (SIGKILL); if nobody did that, the machine had no memory left."
    if kind == "SIGABRT":
        return "was aborted (SIGABRT) by a library of C++ code, most often gloo."
    return f"crashed ({kind})." if kind in ("SIGSEGV", "SIGBUS", "SIGFPE") else f"got {kind}."


def in_call(noted: Noted | None, preposition: str = "") -> str:
    """Such as " in all_reduce of 4 float32 values, line 3 of worker: ..."; "" for none."""
    if noted is None:
        return ""
    place = f", {place_text(noted.line)}" if noted.line else ""
    return f"{preposition} {call_text(noted)}{place}"


def call_text(noted: Noted) -> str:
    """Such as "broadcast of 4 float32 values with root 0"."""
    way: dict[str, Callable[[int], str]] = {
        "recv": lambda root: f" from rank {root}" if root >= 0 else "",
        "send": lambda root: f" to rank {root}",
    }
    if not noted.dtype:  # a barrier
        return noted.kind
    end = way.get(noted.kind, lambda root: f" with root {root}" if root >= 0 else "")(noted.root)
    return f"{noted.kind} of {noted.num_values:,} {noted.dtype} values{end}"


def place_text(line: Line) -> str:
    """Such as "line 3 of worker: `dist.all_reduce(x)`", counted from the function's first line."""
    source = one_line(linecache.getline(line.file, line.number).strip(), 160)
    text = f"line {line.number - line.first + 1} of {line.function}"
    return f"{text}: `{source}`" if source else text


def names(ranks: Sequence[int]) -> str:
    """Such as "rank 1" or "ranks 0, 2 and 3"."""
    *most, last = map(str, sorted(ranks))
    return f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"


def clean(text: str) -> str:
    """One line without addresses and temporary paths."""
    folder = re.escape(tempfile.gettempdir())
    return re.sub(rf"{folder}/\S*?(?=[\"':,)\s]|$)", "<temporary file>", one_line(text))
