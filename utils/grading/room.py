"""Grade a folder: what is new is judged, what is known is kept, and the table grows.

How it works: each learner's lab is a task. Threads, as many as `jobs`, take tasks and ask a warden
of their own for one exercise after the other; after each task the table is written. A row is kept
from an earlier grading when the file, the checks and the labs are the same.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from utils.grading.clerk import Limits, Room, work
from utils.grading.copy_of_course import CourseCopy
from utils.grading.course import CourseError, Lab, read_labs
from utils.grading.notebook import SubmissionError, read_submission
from utils.grading.submissions import Submission, find_submissions
from utils.grading.table import Row, read_rows, safe


def grade(
    folder: Path,
    out: Path,
    root: Path,
    only: Sequence[str] = (),
    jobs: int = 1,
    limits: Limits | None = None,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Grade all submissions in `folder`, write the table to `out`, and return its rows.

    Nothing else is written, except in a temporary folder. Raises CourseError, one sentence, for a
    call that cannot work, and OSError when the table cannot be written.
    """
    labs = read_labs(root)
    found, strange = find_submissions(folder, set(labs))
    wanted = _wanted(only, labs, found)
    out = _usable(out, folder)
    for path in strange:
        say(f"not graded, no lab of the course: {safe(str(path.relative_to(folder)))}")
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as scratch:
        course = CourseCopy(root, Path(scratch))
        room = Room(folder, out, limits or Limits(), labs, course, Path(scratch), say)
        _plan(room, found, wanted, {(r.learner, r.exercise): r for r in read_rows(out)})
        room.write()
        work(room, jobs)
        return [room.rows[key] for key in sorted(room.rows)]


def _wanted(only: Sequence[str], labs: dict[str, Lab], found: list[Submission]) -> list[str]:
    only = [number.zfill(2) for number in only]
    unknown = [number for number in only if number not in labs]
    if unknown:
        raise CourseError(f"There is no lab {', '.join(unknown)}; known are {', '.join(labs)}.")
    return sorted(set(only) or {each.lab for each in found})


def _usable(out: Path, folder: Path) -> Path:
    out, folder = out.resolve(), folder.resolve()
    if out == folder or folder in out.parents:
        raise CourseError(f"{out} lies in the folder of the submissions: name another with --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(f"{out} cannot be made: {error.strerror or error}.") from None
    return out


def _plan(
    room: Room, found: list[Submission], wanted: list[str], old: dict[tuple[str, str], Row]
) -> None:
    """Fill `rows` with what is known or needs no judge, and `tasks` with the rest."""
    handed_in = {(each.learner, each.lab): each for each in found}
    for learner in sorted({each.learner for each in found}):
        for number, lab in room.labs.items():
            submission = handed_in.get((learner, number))
            keys = [asked.key for asked in lab.exercises]
            known = [old.get((safe(learner), key)) for key in keys]
            if submission is None:
                if number in wanted:
                    _fill(room, learner, keys, "not attempted", "No file was handed in.")
                continue
            try:
                content = _content(submission)
            except SubmissionError as error:
                _fill(room, learner, keys, "not yet", str(error))
                continue
            mark = hashlib.sha256(content).hexdigest()
            if all(row and (row.sha256, row.course) == (mark, room.course.fingerprint)
                   for row in known):  # fmt: skip
                kept = [replace(row, learner=learner) for row in known]
                room.rows.update({(learner, row.exercise): row for row in kept})
            elif number in wanted:
                room.num_tasks += 1
                room.tasks.put((submission, lab, mark))


def _content(submission: Submission) -> bytes:
    if len(submission.files) > 1:
        names = ", ".join(path.name for path in submission.files)
        raise SubmissionError(f"There are {len(submission.files)} files for this lab ({names}): "
                              "keep the one that counts.")  # fmt: skip
    return read_submission(submission.files[0])


def _fill(room: Room, learner: str, keys: Sequence[str], status: str, message: str) -> None:
    for key in keys:
        room.rows[learner, key] = Row(learner, key, status, message)
