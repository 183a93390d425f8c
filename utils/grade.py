"""Grade a room: `python -m utils.grade FOLDER` runs every submitted lab and writes a table.

How it works: FOLDER holds a subfolder for each learner (anna/lab_01_the_bill.ipynb) or files with
the learner in front (anna_lab_01_the_bill.ipynb). Each exercise's answer is taken out of its
notebook and checked by the course's own check, in processes with limits; the table has a row for
each learner and exercise: passed, not yet, not attempted, or needs a look. An interrupted grading
goes on where it was when the same command is given again. What it can promise, and what not, is
said in `utils/grading/__init__.py`.

Left out: grades, deadlines, and systems other than Linux.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from utils.console import print_what_it_can
from utils.grading.clerk import Limits
from utils.grading.course import CourseError
from utils.grading.room import grade
from utils.grading.table import CSV_NAME, HTML_NAME, as_text, read_rows

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
NO_LANDLOCK = (
    "This kernel has no Landlock (Linux 5.13 or newer, switched on), so a hostile submission could "
    "delete files of yours: grade in a virtual machine or as a user of its own."
)
NO_SCOPES = (
    "This kernel is older than 6.12: a hostile submission cannot change files, but could end "
    "processes of yours, this grading among them."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 when the table is complete."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.folder is None) != options.rehearse:
        parser.error("give the folder with the submitted labs, or --rehearse")
    if not sys.platform.startswith("linux"):
        print("Grading needs Linux, for its limits: use WSL, a container or a virtual machine.",
              file=sys.stderr)  # fmt: skip
        return 1
    print_what_it_can()
    from utils.grading.cage import adopt_orphans, landlock_version
    from utils.grading.tree import kill_all

    version = landlock_version()
    warning = NO_LANDLOCK if not version else NO_SCOPES if version < 6 else ""
    if warning:
        print(warning, file=sys.stderr)
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended like Ctrl-C: nothing stays
    try:
        return _rehearse(options) if options.rehearse else _grade(options)
    finally:
        kill_all(os.getpid())


def _grade(options: argparse.Namespace) -> int:
    limits = Limits(options.time_limit, options.lab_time_limit, int(options.memory_limit * GIB))
    try:
        rows = grade(options.folder, options.out, ROOT, options.labs, options.jobs, limits, _say)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The grading stopped: {error}. The last table in {options.out} is whole; give the "
              "same command again to go on.", file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted. {options.out / CSV_NAME} has all that was finished; give the same "
              "command again to go on.", file=sys.stderr)  # fmt: skip
        return 130
    print(f"\n{as_text(rows)}\n\nwrote {options.out / CSV_NAME} and {options.out / HTML_NAME}")
    return 0


def _rehearse(options: argparse.Namespace) -> int:
    """Grade a room of two made up of solutions/ and labs/, where every verdict is known."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as place:
        for learner, folder in (("solved", "solutions"), ("untouched", "labs")):
            shutil.copytree(ROOT / folder, Path(place, "room", learner))
        options.folder, options.out = Path(place, "room"), Path(place, "grades")
        code = _grade(options)
        rows = read_rows(options.out) if not code else []
    expected = {"solved": "passed", "untouched": "not attempted"}
    odd = [row for row in rows if row.status != expected[row.learner]]
    for row in odd:
        print(f"unexpected: {row.learner} {row.exercise}: {row.status}. {row.message}")
    print("As expected." if rows and not odd else "Not as expected: this machine is not ready.")
    return 1 if odd or not rows else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m utils.grade", description="Check all submitted labs and write a table."
    )
    add = parser.add_argument
    # fmt: off
    add("folder", type=Path, nargs="?", metavar="FOLDER",
        help="holds LEARNER/lab_01_....ipynb or LEARNER_lab_01_....ipynb")
    add("--rehearse", action="store_true",
        help="grade the course's own solutions and untouched labs, to see that it works here")
    add("--out", type=Path, default=Path("grades"), metavar="DIR", help="default: grades")
    add("--labs", nargs="+", default=[], metavar="NN", help="only these, for example 01 03")
    add("--jobs", type=_count, default=1, metavar="N",
        help="labs at a time (default 1: a loaded machine makes checks slow)")
    add("--time-limit", type=_positive, default=200.0, metavar="S",
        help="seconds for one exercise (default 200); its check may have a lower limit")
    add("--lab-time-limit", type=_positive, default=600.0, metavar="S",
        help="seconds for all exercises of one lab (default 600)")
    add("--memory-limit", type=_positive, default=6.0, metavar="GIB",
        help="GiB for all processes of one exercise (default 6)")
    # fmt: on
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 64:
        raise argparse.ArgumentTypeError(f"{text} is not a number of jobs from 1 to 64")
    return value


if __name__ == "__main__":
    sys.exit(main())
