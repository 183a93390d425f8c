"""How the planner writes numbers, names of what is asked, and the nearest known name.

How it works: three figures, or all before the point, never an exponent; the unit of a duration
follows its size. A name stands with its flag, so that one sentence serves Python and a terminal.

Left out: sentences, which stand where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from difflib import SequenceMatcher

GB = 1e9  # chips are sold in decimal gigabytes
ALIKE = 0.6  # of 1; below it two names have nothing to do with each other
_FLAGS = {"num_gpus": "--gpus"}  # the others are called as in Python


def number(value: float) -> str:
    """Three figures, or all before the point: 0.0355, 12.3, 2,054."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{Decimal(f'{value:.3g}'):f}"


def dollars(usd: float) -> str:
    """E.g. "$2,054", "$3.99", "$0.00012"."""
    return f"${usd:,.2f}" if 1 <= usd < 100 else f"${number(usd)}"


def duration(days: float) -> str:
    """Days; below one, hours; below one of them, seconds: "12.3 days", "2.03 hours"."""
    value, unit = days, "day"
    if days < 1:
        value, unit = 24 * days, "hour"
    if value < 1:
        value, unit = 86_400 * days, "second"
    text = number(value)
    return f"{text} {unit}{'s' * (text != '1')}"


def gigabytes(num_bytes: float) -> str:
    """One place after the point, three figures below one gigabyte; without the unit."""
    value = num_bytes / GB
    return f"{value:,.1f}" if value >= 1 else number(value)


def share(value: float) -> str:
    """Whole percents; below one, two figures."""
    return f"{value:.0%}" if value >= 0.01 else f"{Decimal(f'{100 * value:.2g}'):f}%"


def token_count(tokens: float) -> str:
    """E.g. "10 billion tokens", "2.5 million tokens", "65,536 tokens"."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if tokens >= size:
            return f"{number(tokens / size)} {word} tokens"
    return f"{tokens:,.0f} tokens"


def named(name: str) -> str:
    """A field of the request, and its flag: "num_gpus (--gpus)"."""
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    return f"{name} ({flag})"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A question to follow the refusal; nothing if no known name is like the word."""
    nearest = max(known, key=lambda name: _likeness(word, name))
    return f" Did you mean {nearest}?" if _likeness(word, nearest) >= ALIKE else ""


def _likeness(word: str, name: str) -> float:
    """From 0 to 1, by letters and digits; the beginning of a name counts like the whole."""
    word, name = ("".join(filter(str.isalnum, str(each).casefold())) for each in (word, name))
    parts = (name, name[: len(word)])
    return max(SequenceMatcher(None, word, part).ratio() for part in parts) if word else 0.0
