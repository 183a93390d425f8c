"""Who has handed in what: the files in a folder, by learner and lab.

How it works: a subfolder is a learner, and its notebooks, at most two folders deep, are theirs:
`anna/lab_01_the_bill.ipynb`, `anna/my-labs/lab_01_v2.ipynb`. A notebook beside the subfolders has
the learner in front: `anna_lab_01_the_bill.ipynb`. Only the number after `lab_` counts. Two files
of one learner for one lab are not chosen from: this lab's rows say so. A lab without a learner's
name stops the grading before it begins, because its rows would belong to nobody.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.grading.course import CourseError

_NAME = re.compile(r"(?:(?P<learner>.*?)[ _.-]+)?lab_(?P<lab>\d\d)(?!\d).*\.ipynb", re.IGNORECASE)
MAX_DEPTH = 2


@dataclass(frozen=True)
class Submission:
    """What a learner handed in for a lab: one file; several are a mistake, none is none."""

    learner: str
    lab: str
    files: tuple[Path, ...]


def find_submissions(folder: Path, known_labs: set[str]) -> tuple[list[Submission], list[Path]]:
    """All submissions by learner and lab, and the notebooks that belong to no lab of the course.

    Raises CourseError for a folder that is missing or holds a lab without a learner.
    """
    if not folder.is_dir():
        raise CourseError(f"{folder} is not a folder: name the one that holds the submitted labs.")
    files: dict[tuple[str, str], list[Path]] = defaultdict(list)
    strange: list[Path] = []
    for learner, path in _notebooks(folder):
        name = _NAME.fullmatch(path.name)
        if not name or name["lab"] not in known_labs:
            strange.append(path)
        elif learner or name["learner"]:
            files[learner or name["learner"], name["lab"]].append(path)
        else:
            raise CourseError(
                f"{path.name} lies in {folder} without a learner's name: call it "
                f"LEARNER_{path.name}, or put it into a folder named after the learner."
            )
    if not files:
        raise CourseError(
            f"{folder} holds no submitted lab: expected are LEARNER/lab_01_....ipynb or "
            "LEARNER_lab_01_....ipynb."
        )
    return [Submission(*key, tuple(sorted(files[key]))) for key in sorted(files)], sorted(strange)


def _notebooks(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each notebook with the learner that its subfolder names, "" beside the subfolders."""
    for path in _entries(folder):
        if path.is_dir() and not path.is_symlink():
            for inner in _below(path, MAX_DEPTH):
                yield path.name, inner
        elif path.name.lower().endswith(".ipynb"):
            yield "", path


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for path in _entries(folder):
        if path.is_dir() and not path.is_symlink():
            if depth > 1:
                yield from _below(path, depth - 1)
        elif path.name.lower().endswith(".ipynb"):
            yield path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    except OSError as error:
        raise CourseError(f"{folder} cannot be read: {error.strerror or error}.") from None
