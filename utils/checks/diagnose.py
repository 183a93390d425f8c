"""Compare a number with the truth, and name the mistake that explains the difference.

A judge lists the mistakes that learners make with the value that each leads to. When an answer is
wrong and equals one of them, the message names it; otherwise it says how far off the answer is.
"""

import math
from collections.abc import Mapping
from numbers import Real

from utils.checks.helpers import NotYet, close_to, format_bytes, require


def require_number(what: str, got: object) -> None:
    """Refuse None, texts and tensors with a sentence that says what came instead."""
    is_number = isinstance(got, Real) and not isinstance(got, bool)
    kind = type(got).__name__
    likely = {
        "NoneType": "the function ends without a return",
        "Tensor": "take the number out of the tensor with .item()",
    }.get(kind, "return a plain number")
    require(is_number, f"{what} must be a number, not {kind}", likely=likely)
    require(math.isfinite(got), f"{what} must be a finite number, not {got}")


def require_function(answer: object) -> None:
    """Refuse a result where the function itself is asked for."""
    likely = "pass the function itself, without parentheses"
    require(callable(answer), "The check needs your function", got=answer, likely=likely)


def require_value(
    what: str,
    got: object,
    truth: float,
    mistakes: Mapping[str, float],
    rtol: float,
    in_bytes: bool = True,
) -> None:
    """Accept `got` within `rtol` of `truth`; else raise NotYet with the mistake it equals."""
    require_number(what, got)
    if close_to(got, truth, rtol):
        return
    likely = ""
    # The nearest explanation counts, and only if it is nearer than a hair: no wild guesses.
    for mistake, value in sorted(mistakes.items(), key=lambda item: abs(item[1] - got)):
        if close_to(got, value, max(rtol / 2, 1e-9)):
            likely = mistake
        break
    far_off = f"{what} is {got / truth:.3g} times what it should be" if truth else f"{what} is off"
    write = format_bytes if in_bytes else "{:,.6g}".format
    raise NotYet(far_off, write(truth), write(got), likely)
