"""The log of a training run: JSON lines that are whole or absent, and what a reader makes of them.

How it works: rank 0 appends one object a line, each in a single write to the file, so that a run
that is killed leaves at most its last line cut short. A resumed run first takes away what lies
beyond its checkpoint and then adds a "start" line of its own. `read_log` does the same to what it
reads, so that it gives one continuous run whatever happened to it, and says in `notes` what it
left out.

Left out: two machines that both write; rank 0 alone has the log.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

from utils.trainer.settings import TrainerError

SCHEMA, LOG_NAME = 1, "log.jsonl"
EVENTS = ("start", "step", "validation", "saved", "stopped", "end")
Event = dict[str, Any]


@dataclass(frozen=True)
class TrainingLog:
    """One run, resumed or not; losses are nats per byte."""

    start: Event  # of the last start: a resumed run may have other ranks
    steps: list[Event]
    validations: list[Event]
    saved: list[Event]
    end: Event | None  # None while the run has not finished
    notes: list[str] = field(default_factory=list)
    starts: list[Event] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """One a step, the mean of all ranks."""
        return [each["loss"] for each in self.steps]

    @property
    def is_finished(self) -> bool:
        """Whether the run took all its steps."""
        return self.end is not None


def read_log(path: str | Path) -> TrainingLog:
    """The run of a log file, or of the folder that holds it.

    Raises FileNotFoundError where there is none and ValueError for what is no log of this trainer,
    each in one sentence.
    """
    path, notes = log_path(path), []
    try:
        events = read_events(path, notes)
    except OSError as error:
        raise FileNotFoundError(
            f"There is no log {path} ({error.strerror}): give the folder of a run."
        ) from None
    if not events or events[0]["event"] != "start":
        raise ValueError(f"{path} does not begin as a log of this trainer: give another file.")
    if events[0].get("schema") != SCHEMA:
        raise ValueError(
            f"{path} has schema {events[0].get('schema')!r}, and this version reads {SCHEMA}: use "
            "the version that wrote it."
        )
    return _log_of(events, notes)


def log_path(path: str | Path) -> Path:
    """The log in a run's folder; a file's path stays as it is."""
    path = Path(path)
    return path / LOG_NAME if path.is_dir() else path


def until(events: list[Event], step: int) -> list[Event]:
    """What still holds when a run goes on from `step`."""
    kept = [each for each in events if each["event"] not in ("end", "stopped")]
    return [each for each in kept if each["event"] == "start" or each["step"] <= step]


def read_events(path: Path, notes: list[str] | None = None) -> list[Event]:
    """All lines as they stand, also those that a resumed run has overtaken; OSError if none are."""
    events, lines = [], path.read_bytes().split(b"\n")
    notes = [] if notes is None else notes
    for number, line in enumerate(lines, start=1):
        event = _event(line)
        if event is not None:
            events.append(event)
        elif number == len(lines) and line:
            notes.append("The last line was cut short and left out.")
        elif line.strip():
            notes.append(f"Line {number} is no event of this trainer and was left out.")
    return events


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    is_event = isinstance(event, dict) and event.get("event") in EVENTS
    needs_step = is_event and event["event"] != "start"
    return event if is_event and (not needs_step or isinstance(event.get("step"), int)) else None


def _log_of(events: list[Event], notes: list[str]) -> TrainingLog:
    kept: list[Event] = []
    for event in events:
        if event["event"] == "start" and kept:
            kept = until(kept, event.get("resumed_from") or 0)
        kept.append(event)
    by_kind = {kind: [each for each in kept if each["event"] == kind] for kind in EVENTS}
    notes += [each["reason"] for each in by_kind["stopped"]]
    starts = by_kind["start"]
    if len(starts) > 1:
        places = [each.get("resumed_from") or 0 for each in starts[1:]]
        from_where = f"resumed from step {', '.join(map(str, places))}"
        notes.append(f"The run was {from_where if any(places) else 'begun anew'}.")
    there = [each["step"] for each in by_kind["step"]]
    num_missing = max(there, default=0) - len(set(there))
    if num_missing:
        notes.append(f"{num_missing} steps have no line.")
    return TrainingLog(
        starts[-1], by_kind["step"], by_kind["validation"], by_kind["saved"],
        by_kind["end"][-1] if by_kind["end"] else None, notes, starts,
    )  # fmt: skip


class LogWriter:
    """Appends events to `folder/log.jsonl`; the file is locked, for a run has one writer."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_NAME
        self._file = self.path.open("ab", buffering=0)
        self._lock()

    def write(self, event: str, **fields: Any) -> Event:
        """One line, whole or not at all. Raises TrainerError if the disk does not take it."""
        written = {"event": event, **fields}
        line = json.dumps(written, allow_nan=False).encode() + b"\n"
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) == len(line):
                return written
            reason = "the disk is full"
        except OSError as error:
            reason = error.strerror
        os.ftruncate(self._file.fileno(), before)
        raise TrainerError(
            f"{self.path} cannot be written ({reason}): make room and go on with --resume."
        )

    def close(self) -> None:
        """Give the file, and the lock, back."""
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise TrainerError(
                f"Another run writes into {self.path.parent} right now: wait for its end, or "
                "choose another --folder."
            ) from None

    def cut(self, step: int) -> None:
        """Take away what lies beyond `step`: rewritten beside, locked, and moved into place."""
        kept = until(read_events(self.path), step)
        beside = self.path.with_name(LOG_NAME + ".unfinished")
        beside.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in kept))
        old, self._file = self._file, beside.open("ab", buffering=0)
        self._lock()
        beside.replace(self.path)
        old.close()
