"""What a recorded file must hold, so that no lesson meets a word where it reads a number.

How it works: every experiment has a list of the keys that lessons read, with a kind each: "text",
"words" (a text that may be empty), "count" (a whole number from 0 on), "number" (finite, above 0),
"amount" (may be 0), "numbers" (a list of them), "mapping", "flag". A question mark allows None,
which is what a run out of memory leaves, "maybe" a row without the key, as older files have them.
More keys may be there.

Left out: whether a figure is plausible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from typing import Any

KINDS_OF_DEVICE, MAYBE = ("cpu", "cuda"), "maybe "
ROW_KEYS: dict[str, dict[str, str]] = {
    "matmul_precision": {
        "precision": "text", "size": "count", "seconds": "number", "flops_per_s": "number",
    },
    "step_precision": {
        "precision": "text", "seconds": "number", "flops_per_s": "number", "peak_bytes": "count?",
    },
    "whole_step": {
        "recipe": "text", "precision": "text", "library": "text", "seconds": "number",
        "tokens_per_s": "number", "peak_bytes": "count?",
    },
    "checkpointing": {
        "attention": "text", "plan": "text", "num_tokens": "count", "peak_bytes": "count?",
        "seconds": "number?", "flops": "count?", "largest_batch": "count?",
        "largest_batch_seconds": "number?", "held_bytes": "maybe count",
    },
    "collectives": {"backend": "text", "num_ranks": "count", "bytes": "count", "seconds": "number"},
    "ranks": {
        "recipe": "text", "method": "text", "library": "text", "num_ranks": "count",
        "seconds": "number", "held_bytes": "count", "peak_bytes": "count", "sent_bytes": "count",
    },
    "capstone": {
        "precision": "text", "is_compiled": "flag", "batch_size": "count", "seconds": "number",
        "tokens_per_s": "number", "mfu": "number?", "peak_flops_per_s": "number?",
        "peak_source": "text",
    },
    "attention": {
        "attention": "text", "context_length": "count", "seconds": "number?",
        "peak_bytes": "count?",
    },
    "compile": {
        "model": "text", "eager_s": "number", "compiled_s": "number?", "compile_s": "number?",
        "low_ratio": "number?", "ratio": "number?", "high_ratio": "number?", "problem": "text?",
    },
    "algorithms": {
        "name": "text", "num_trials": "count", "learning_rate": "number", "target_loss": "number",
        "tokens": "numbers", "num_reached": "count", "num_seeds": "count", "step_s": "number",
        "tokens_per_step": "count",
    },
    "ladder": {
        "rung": "text", "recipe": "mapping", "held": "mapping", "tokens_per_step": "count",
        "flops_per_token": "amount", "peak_bytes": "count", "num_tokens": "count",
        "problem": "words", "runs_s": "numbers?", "loss": "number?",
    },
}  # fmt: skip


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one and math.isfinite(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda value: isinstance(value, str) and bool(value), "a text"),
    "count": (_is_count, "a whole number"),
    "number": (_is_number, "a number above 0"),
    "numbers": (_are_numbers, "a list of numbers above 0"),
    "words": (lambda value: isinstance(value, str), "a text"),
    "amount": (lambda value: value == 0 or _is_number(value), "a number from 0 on"),
    "mapping": (lambda value: isinstance(value, dict), "a mapping"),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
}


def file_problem(data: dict[str, Any]) -> str:
    """What is wrong with everything but the rows, or ""."""
    for name in ("device", "driver", "torch", "code_version"):
        if not isinstance(data[name], str) or not data[name]:
            return f"its {name} is {_short(data[name])}, not a text"
    if data["kind"] not in KINDS_OF_DEVICE:
        return f"its kind is {_short(data['kind'])}, not cpu or cuda"
    try:
        date.fromisoformat(data["date"])
    except (TypeError, ValueError):
        return f"its date is {_short(data['date'])}, not like 2026-11-24"
    for name, kind in (("made", dict), ("skipped", str)):
        part = data.get(name, {})
        if not isinstance(part, dict) or not all(isinstance(v, kind) for v in part.values()):
            return f"its {name} is not what `make record` writes"
    return _made_problem(data.get("made", {}))


def experiments_problem(experiments: Any) -> str:
    """What is wrong with the frame around the rows, or ""."""
    if not isinstance(experiments, dict):
        return "it lacks experiments"
    for name, rows in experiments.items():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return f"its {name} is no list of rows"
    return ""


def rows_problem(experiment: str, rows: list[dict[str, Any]]) -> str:
    """What is wrong with the rows of one experiment, or ""; of an unknown one only no rows."""
    if not rows:
        return "has no rows"
    for number, row in enumerate(rows, start=1):
        for key, kind in ROW_KEYS.get(experiment, {}).items():
            if key not in row:
                if kind.startswith(MAYBE):
                    continue
                return f"lacks {key} in row {number}"
            check, words = CHECKS[kind.removeprefix(MAYBE).removesuffix("?")]
            may_lack = kind.endswith("?") and row[key] is None
            if not may_lack and not check(row[key]):
                return f"has {_short(row[key])} for {key} in row {number}, not {words}"
    return ""


def _made_problem(made: dict[str, dict[str, Any]]) -> str:
    for name, how in made.items():
        words = [how[key] for key in ("driver", "torch", "date", "code_version") if key in how]
        if not all(isinstance(word, str) for word in words):
            return f"its made of {name} is not what `make record` writes"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
