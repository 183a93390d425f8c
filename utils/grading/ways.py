"""Try all ways of judging on the course's solutions: `python -m utils.grading.ways 10 11`.

How it works: a warden judges each exercise of the named labs apart, on ranks, inside. An exercise
belongs into APART or RANKS of kinds.py if the solution passes that way; try wrong answers too
(tests/test_grade_kinds.py), for a check that counts calls or looks into objects may not bear it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from utils.grading.clerk import Limits
from utils.grading.copy_of_course import CourseCopy
from utils.grading.course import read_labs
from utils.grading.kinds import kind_of
from utils.grading.wardens import Warden

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("apart", "ranks", "inside")


def main(numbers: Sequence[str]) -> int:
    """Print one line for each exercise; returns the exit code."""
    labs = read_labs(ROOT)
    unknown = [number for number in numbers if number not in labs]
    if unknown or not numbers:
        print(f"Name labs, of these: {', '.join(labs)}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ways-", ignore_cleanup_errors=True) as place:
        warden = Warden(CourseCopy(ROOT, Path(place)).path, Path(place, "w"))
        try:
            for lab in (labs[number] for number in numbers):
                content = (ROOT / "solutions" / f"{lab.stem}.ipynb").read_bytes()
                for asked in lab.exercises:
                    found = [f"{kind}: {_try(warden, asked.key, kind, content, place)}"
                             for kind in KINDS]  # fmt: skip
                    print(f"{asked.key} is {kind_of(asked.key)}. {', '.join(found)}", flush=True)
        finally:
            warden.close()
    return 0


def _try(warden: Warden, key: str, kind: str, content: bytes, place: str) -> str:
    limits = Limits()
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        file = Path(folder, "submission.ipynb")
        file.write_bytes(content)
        request = {"key": key, "file": str(file), "folder": folder, "kind": kind,
                   "time_limit_s": limits.exercise_s, "memory_bytes": limits.memory_bytes,
                   "file_bytes": limits.file_bytes}  # fmt: skip
        return warden.ask(request)["status"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
