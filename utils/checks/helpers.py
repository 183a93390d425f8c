"""What a judge says and compares with: NotYet, require, close_to, format_bytes.

A judge is a function that gets a learner's answer and returns a sentence with the numbers, or
raises NotYet. Compare floats with `close_to`: `abs(got - expected) > tolerance` is False for NaN,
so a judge written that way would pass it.
Left out: a verdict in part; an exercise that wants one is two exercises.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

MAX_ITEMS, MAX_CHARACTERS = 8, 200
COLUMNS = 88  # of an output in JupyterLab, on a page of 1,200 pixels


class NotYet(Exception):
    """An answer that is not right yet: what is wrong, expected and got, and the likely mistake.

    `expected` and `got` are shown by `shown`, a text as it is; either may be left out (None).
    `status` is the outcome that it leads to; a subclass may name another one (on_ranks.py).
    """

    status = "not yet"

    def __init__(self, what: str, expected: Any = None, got: Any = None, likely: str = "") -> None:
        self.what, self.expected, self.got, self.likely = what, expected, got, likely
        super().__init__(" ".join(self._sentences()))

    def _sentences(self) -> Iterable[str]:
        yield _sentence(self.what)
        if self.expected is not None:
            yield f"Expected {shown(self.expected)}, got {shown(self.got)}."
        elif self.got is not None:
            yield f"Got {shown(self.got)}."
        if self.likely:
            yield f"Likely mistake: {_sentence(self.likely)}"


def require(
    condition: Any, what: str, expected: Any = None, got: Any = None, likely: str = ""
) -> None:
    """Raise NotYet with these words unless `condition` holds."""
    if not condition:
        raise NotYet(what, expected, got, likely)


def close_to(got: Any, expected: Any, rtol: float = 1e-6, atol: float = 0.0) -> bool:
    """Say whether two numbers, or two equally long lists or tensors of them, agree.

    |got - expected| <= max(rtol x the larger of the two, atol). NaN agrees with nothing, and what
    is not a number (None, a text, True) is never close: it is False, not an error.
    """
    got, expected = _plain(got), _plain(expected)
    if isinstance(expected, (list, tuple)):
        same_length = isinstance(got, (list, tuple)) and len(got) == len(expected)
        return same_length and all(
            close_to(g, e, rtol, atol) for g, e in zip(got, expected, strict=True)
        )
    if not (_is_number(got) and _is_number(expected)):
        return False
    return math.isclose(got, expected, rel_tol=rtol, abs_tol=atol)


def format_bytes(num_bytes: int) -> str:
    """Write a number of bytes as "14.0 MiB (14,680,064 bytes)", a small one as "532 bytes"."""
    from utils.plot_axes import bytes_text  # imports matplotlib: only when it is needed

    text = bytes_text(num_bytes)
    return text if abs(num_bytes) < 1024 else f"{text} ({num_bytes:,} bytes)"


def shown(value: Any) -> str:
    """Write a value short and the same on every run: no addresses, 6 digits, at most 8 items."""
    try:
        text = _written(_plain(value, max_items=MAX_ITEMS))
    except Exception:  # the object's own code: __repr__, shape, tolist
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def one_line(text: str, max_characters: int = 300) -> str:
    """Put a text on one line, without addresses, and cut it when it is very long."""
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", " ".join(text[:5_000].split()))
    return text if len(text) <= max_characters else f"{text[:max_characters].rstrip()} ... (cut)"


def wrapped(text: str) -> str:
    """A text in lines that end between words; JupyterLab would break a long one anywhere.

    Lines that are short enough, and the spaces inside of a line, stay as they are.
    """
    return "\n".join(
        textwrap.fill(line, COLUMNS, break_on_hyphens=False, break_long_words=False)
        if len(line) > COLUMNS else line
        for line in text.split("\n")
    )  # fmt: skip


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        items = [shown(item) for item in value[:MAX_ITEMS]] + ["..."] * (len(value) > MAX_ITEMS)
        return f"[{', '.join(items)}]"
    if _is_number(value):
        return f"{value:,}" if isinstance(value, int) else f"{float(value):,.6g}"
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Callable):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    if hasattr(value, "shape"):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return one_line(repr(value))


def _plain(value: Any, max_items: int | None = None) -> Any:
    """Turn a tensor or an array into numbers in lists, unless it has more than `max_items`."""
    if not (hasattr(value, "tolist") and hasattr(value, "shape")):
        return value
    too_many = max_items is not None and math.prod(value.shape) > max_items
    return value if too_many else value.tolist()


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
