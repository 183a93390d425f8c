"""One real run of lab 10's job, made once a test session, whose log others forge."""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.wrong_builders_10 import right
from utils.checks.truth_10_run import repeat
from utils.trainer.log import LOG_NAME

Events = list[dict[str, Any]]
LAZY_RATE = 1e-5


@cache
def _true_lines() -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as place:
        right["train_job"](Path(place) / "run")
        return tuple((Path(place) / "run" / LOG_NAME).read_text().splitlines())


def true_events() -> Events:
    """The events of the solution's run; a copy, to be changed."""
    return [json.loads(line) for line in _true_lines()]


def write(folder: Path, events: Events) -> None:
    """A log in a run's folder."""
    folder.mkdir()
    text = "".join(json.dumps(each) + "\n" for each in events)
    (folder / LOG_NAME).write_text(text)


def start_of(events: Events) -> dict[str, Any]:
    """The first line."""
    return events[0]


def end_of(events: Events) -> dict[str, Any]:
    """The last line."""
    return events[-1]


def steps_of(events: Events) -> Events:
    """The lines of steps."""
    return [each for each in events if each["event"] == "step"]


@cache
def lazy_losses() -> tuple[tuple[float, ...], float]:
    """Losses of an honest run that learns next to nothing."""
    start = deepcopy(true_events()[0])
    start["settings"]["learning_rate"] = LAZY_RATE
    return tuple(repeat(SimpleNamespace(start=start)))
