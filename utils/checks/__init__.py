"""Checks of the labs' exercises: `check("01.2", answer)`, `hint("01.2")`, `progress()`.

Judges (`lab_XX.py`) take `exercise`, `NotYet`, `require`, `close_to` and `format_bytes` from here.
"""

from utils.checks.engine import Outcome, check, exercise, hint, judge, progress
from utils.checks.helpers import NotYet, close_to, format_bytes, require

__all__ = [
    "NotYet",
    "Outcome",
    "check",
    "close_to",
    "exercise",
    "format_bytes",
    "hint",
    "judge",
    "progress",
    "require",
]
