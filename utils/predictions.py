"""Predict first: put the learner's guess beside the truth, in words.

A guess that turns out wrong is what teaches; nothing is stored or graded.
"""

from utils.measured import measured, significant
from utils.plot_axes import bytes_text, usd_text


def reveal(
    what: str, guess: float | None, truth: float, unit: str = "", is_measured: bool = False
) -> None:
    """Print guess, truth and how far apart; `unit` "bytes" and "$" choose their own scale.

    `is_measured` marks the truth as a measurement of this machine. Raises ValueError for a guess
    that is no positive number: such a guess cannot be so-and-so many times off.
    """
    shown = measured(_with_unit(truth, unit)) if is_measured else _with_unit(truth, unit)
    if guess is None:
        print(f"{what}: {shown} (you made no prediction).")
        return
    if isinstance(guess, str) or not guess > 0:
        raise ValueError(f"A prediction is a positive number, not {guess!r}: change it above.")
    apart = _apart(truth / guess)
    verdict = measured(apart) if is_measured else apart
    print(f"{what}: {shown}; you said {_with_unit(guess, unit)}, {verdict}.")


def _apart(ratio: float) -> str:
    """How far off: within 5 % is right; otherwise so many times too low or too high."""
    if 0.95 <= ratio <= 1.05:
        return "which is right within 5 %"
    if ratio > 1:
        return f"which is {significant(ratio, 2)} times too low"
    return f"which is {significant(1 / ratio, 2)} times too high"


def _with_unit(value: float, unit: str) -> str:
    if unit == "bytes":
        return bytes_text(value)
    if unit == "$":
        return usd_text(value)
    return f"{significant(value)} {unit}".strip()
