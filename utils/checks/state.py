"""The learner's progress, in one small JSON file that cannot stop a notebook.

How it works: `.progress.json` in the course's folder (or where COURSE_PROGRESS points) maps an
exercise's key to "passed", "not yet" or "not attempted". A writer takes a file lock (filelock, a
package that torch brings along), reads, changes one entry, writes a temporary file beside it and
puts that in its place: a reader sees the old file or the new one, and two notebooks lose nothing.
Whatever the disk does is returned as one sentence, said once; what it did not take is remembered
until the kernel ends, and stored as soon as it can be. A damaged file is set aside, never deleted.
Left out: answers, dates, scores.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from filelock import FileLock, Timeout

PASSED, NOT_YET, NOT_ATTEMPTED = STATUSES = ("passed", "not yet", "not attempted")
LOCK_TIMEOUT_S = 5.0
FORMAT = 1
_DAMAGED = (ValueError, RecursionError)  # what a file that is not ours makes json raise
_unstored: dict[Path, dict[str, str]] = {}  # what a disk did not take, by the file it was for
_said: set[tuple[Path, str]] = set()  # files and reasons that a sentence was returned for


def progress_path() -> Path:
    """Where progress is kept: COURSE_PROGRESS, else `.progress.json` beside README.md."""
    chosen = os.environ.get("COURSE_PROGRESS", "").strip()
    if chosen:
        return Path(chosen).expanduser().resolve()
    return Path(__file__).resolve().parents[2] / ".progress.json"


def read(path: Path | None = None) -> tuple[dict[str, str], str]:
    """Return the status of each exercise seen so far, and "" or one sentence on the trouble."""
    path = path or progress_path()
    stored, trouble = {}, ""
    try:
        stored = _load(path)
    except _DAMAGED:
        trouble = (
            f"{path.name} is damaged and was not read: the next check keeps it as "
            f"{path.name}.damaged and starts a new one."
        )
    except OSError as error:
        trouble = f"Progress could not be read from {path.name}: {_reason(error)}."
    return _joined(stored, _unstored.get(path, {})), trouble


def record(key: str, status: str, path: Path | None = None) -> str:
    """Store the status of one exercise; what was passed once stays passed.

    Returns "", or one sentence on what the disk did; that is not said again at the next check.
    Raises ValueError for an unknown status.
    """
    if status not in STATUSES:
        raise ValueError(f"The status {status!r} is none of {', '.join(STATUSES)}.")
    path = path or progress_path()
    seen = _unstored[path] = _joined(_unstored.get(path, {}), {key: status})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S):
            trouble = _update(path, seen)
    except (OSError, NotImplementedError) as error:  # the second: a disk without locks
        return _say_once(path, _reason(error))
    del _unstored[path]
    _said.difference_update([each for each in _said if each[0] == path])
    return trouble


def _joined(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Both, the newer status of each exercise, but what was passed stays passed."""
    return old | {key: PASSED if old.get(key) == PASSED else new[key] for key in new}


def _say_once(path: Path, reason: str) -> str:
    if (path, reason) in _said:
        return ""
    _said.add((path, reason))
    return (
        f"Results cannot be stored in {path.name}: {reason}. The checks are not affected, and "
        "progress() knows the results until the kernel ends; the environment variable "
        "COURSE_PROGRESS can name another file."
    )


def _update(path: Path, seen: dict[str, str]) -> str:
    trouble = ""
    try:
        progress = _load(path)
    except _DAMAGED:
        kept = _set_aside(path)
        progress, trouble = {}, f"{path.name} was damaged: it is kept as {kept.name}."
    if _joined(progress, seen) != progress:
        _write(path, _joined(progress, seen))
    return trouble


def _load(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    exercises = content.get("exercises") if isinstance(content, dict) else None
    if not isinstance(exercises, dict) or content.get("format") != FORMAT:
        raise ValueError("not a progress file")
    if not all(status in STATUSES for status in exercises.values()):
        raise ValueError("an unknown status")
    return exercises


def _set_aside(path: Path) -> Path:
    kept, number = path.with_name(f"{path.name}.damaged"), 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.damaged-{number}")
    path.rename(kept)
    return kept


def _write(path: Path, exercises: dict[str, str]) -> None:
    text = json.dumps({"format": FORMAT, "exercises": dict(sorted(exercises.items()))}, indent=1)
    temporary = path.with_name(f"{path.name}.new")  # one name: what a killed kernel left goes too
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # also Ctrl-C: the old file stays and nothing half-written is left
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, Timeout):
        return "another notebook is holding it"
    return getattr(error, "strerror", None) or type(error).__name__
