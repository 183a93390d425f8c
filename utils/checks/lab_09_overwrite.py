"""Judge of lab 09, the first overwrite: who, whom, when, in nine logs of buffers."""

from collections.abc import Callable

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_09_overwrite import LOGS, Found, Log, hurt
from utils.checks.truth_09_overwrite_mistakes import name_of


@exercise(
    "09.2",
    "find the overwrite",
    hints=[
        "Take each use by itself. Since when does its buffer have to hold its layer's values, and "
        "until when? Which fillings, of whom, must not begin in between?",
        "since = the latest start_s of a filling of the same buffer by the same layer that begins "
        "before the use. Every filling of that buffer by another layer with since < start_s < "
        "use.end_s is an overwrite. Return the one with the least start_s.",
    ],
    seconds=30,
    lab="lab_09_yafsdp",
)
def judge_overwrite(answer: Callable) -> str:
    """Each log; of several tasks that one filling hurts, any is right."""
    require_function(answer)
    results = [_result(name, log, answer(list(log))) for name, log in LOGS]
    for place, ((name, log), result) in enumerate(zip(LOGS, results, strict=True)):
        found = hurt(log)
        if _is_right(result, found):
            continue
        expected = found[0] if found else "None"
        likely = name_of(results, place)
        what = f"In {name}, the first overwrite" if found else f"{name.capitalize()} has none"
        raise NotYet(what, expected, "None" if result is None else result, likely)
    num_safe = sum(not hurt(log) for _, log in LOGS)
    return (
        f"{num_safe} logs are safe; in {len(LOGS) - num_safe} the first overwrite is found. With "
        f"{LOGS[4][0]}, {results[4][0]} overwrites what {results[4][1]} reads."
    )


def _result(name: str, log: Log, got: object) -> Found | None:
    if got is None:
        return None
    is_triple = isinstance(got, (tuple, list)) and len(got) == 3
    likely = "the first one alone, not a list of all" if isinstance(got, list) else ""
    require(is_triple, f"In {name}: return (who, whom, when) or None", got=got, likely=likely)
    tasks = [use.task for use in log]
    for text in got[:2]:
        likely = "use.task, not the layer or the buffer"
        require(text in tasks, f"In {name}: there is no such task", got=text, likely=likely)
    require_number(f"In {name}, the time", got[2])
    return got[0], got[1], got[2]


def _is_right(result: Found | None, found: list[Found]) -> bool:
    if result is None or not found:
        return result is None and not found
    first = [each for each in found if each[2] == found[0][2]]
    return any(result[:2] == each[:2] and close_to(result[2], each[2], 1e-9) for each in first)
