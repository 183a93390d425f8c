"""The clerks of a grading: threads that take tasks, ask a warden, and write the table.

How it works: `work` starts as many as there are jobs. A clerk's warden is started with the first
task and replaced when it died. Whatever a submission does costs its own rows; an error of the
grader itself (a full disk, say) stops all clerks and is raised.
"""

from __future__ import annotations

import hashlib
import queue
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from utils.grading.copy_of_course import CourseCopy
from utils.grading.course import Lab
from utils.grading.notebook import SubmissionError, read_submission
from utils.grading.submissions import Submission
from utils.grading.table import Row, safe, write_tables
from utils.grading.wardens import Warden, WardenGone

LEAST_S = 5.0  # what an exercise gets when the lab's time is used up: enough to see a stub


@dataclass(frozen=True)
class Limits:
    """For one exercise, except `lab_s`: seconds, bytes of memory of all processes, of files."""

    exercise_s: float = 200.0
    lab_s: float = 600.0
    memory_bytes: int = 6 * 2**30
    file_bytes: int = 512 * 2**20


@dataclass
class Room:
    """One grading, while it runs."""

    folder: Path
    out: Path
    limits: Limits
    labs: dict[str, Lab]
    course: CourseCopy
    scratch: Path
    say: Callable[[str], None]
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    tasks: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    lock: threading.Lock = field(default_factory=threading.Lock)
    errors: list[BaseException] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    num_tasks: int = 0
    num_done: int = 0

    def write(self) -> None:
        """Put the table in place."""
        write_tables([self.rows[key] for key in sorted(self.rows)], self.out)


def work(room: Room, jobs: int) -> None:
    """Do all tasks; raises what went wrong in the grader itself."""
    threads = [threading.Thread(target=_serve, args=(room, number), daemon=True)
               for number in range(min(jobs, room.num_tasks))]  # fmt: skip
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
    finally:  # also Ctrl-C: no warden stays, the table has every finished task
        room.stopping.set()
        for thread in threads:
            thread.join()
    if room.errors:
        raise room.errors[0]


def _serve(room: Room, number: int) -> None:
    """Take tasks until there is none."""
    clerk = Clerk(room, number)
    try:
        while not room.stopping.is_set() and not room.errors:
            try:
                submission, lab, mark = room.tasks.get_nowait()
            except queue.Empty:
                break
            rows = clerk.rows_of(submission, lab, mark)
            with room.lock:
                if len(rows) == len(lab.exercises):
                    room.rows.update({(row.learner, row.exercise): row for row in rows})
                    room.num_done += 1
                    room.write()
                    room.say(_progress(room, submission, rows))
    except BaseException as error:
        room.errors.append(error)
    finally:
        clerk.close()


def _progress(room: Room, submission: Submission, rows: list[Row]) -> str:
    counts = Counter(row.status for row in rows)
    words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    where = f"[{room.num_done}/{room.num_tasks}]"
    return f"{where} {safe(submission.learner)} lab {submission.lab}: {words}"


class Clerk:
    """Asks a warden about one submission after the other."""

    def __init__(self, room: Room, number: int) -> None:
        self._room, self._place = room, room.scratch / f"w{number}"
        self._warden: Warden | None = None

    def rows_of(self, submission: Submission, lab: Lab, mark: str) -> list[Row]:
        """A row for each exercise; fewer when the grading is being stopped."""
        room, rows = self._room, []
        try:
            content = read_submission(submission.files[0])
        except SubmissionError:  # it could be read a moment ago
            content = b""
        file = submission.files[0].relative_to(room.folder).as_posix()
        changed = hashlib.sha256(content).hexdigest() != mark
        deadline = time.monotonic() + room.limits.lab_s
        for asked in lab.exercises:
            left_s = max(LEAST_S, deadline - time.monotonic())
            found = self._ask(asked.key, content, min(room.limits.exercise_s, left_s))
            if room.stopping.is_set():
                return []
            if left_s < room.limits.exercise_s and "still running" in found["message"]:
                found["message"] += " The time for the whole lab is used up."
            looks = found["looks"] + ["the file changed during the grading"] * changed
            if not room.course.is_intact():
                looks.append("the course's files were changed while this ran")
                self.close()
                room.course.mend()
            status = "needs a look" if looks and found["status"] == "passed" else found["status"]
            rows.append(Row(submission.learner, asked.key, status, found["message"],
                            "; ".join(looks[:6]), file, mark, room.course.fingerprint))  # fmt: skip
        return rows

    def _ask(self, key: str, content: bytes, seconds: float) -> dict:
        limits, scratch = self._room.limits, self._room.scratch
        with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:
            file = Path(folder, "submission.ipynb")
            file.write_bytes(content)
            request = {"key": key, "file": str(file), "folder": folder, "time_limit_s": seconds,
                       "memory_bytes": limits.memory_bytes, "file_bytes": limits.file_bytes}
            try:
                self._warden = self._warden or Warden(
                    self._room.course.path, self._place, self._room.stopping
                )
                found = self._warden.ask(request)
            except WardenGone:
                found = {"status": "not yet", "is_clean": False, "looks": ["the warden was ended"],
                         "message": "The process that watched this answer was ended meanwhile."}
            if not found["is_clean"]:
                self.close()
            return found

    def close(self) -> None:
        """End the warden, if there is one."""
        if self._warden is not None:
            self._warden.close()
            self._warden = None
