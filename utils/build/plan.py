"""What is built from what: names, folders, and the one error that the build reports.

`sources/01_the_bill.py` gives `notebooks/01_the_bill.ipynb`; `sources/lab_01_the_bill.py` gives a
notebook of the same name in `labs/` (with stubs) and in `solutions/`.

Left out: reading a source (`utils.build.text`) and running a notebook (`utils.build.run`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDERS = ("notebooks", "labs", "solutions")
LESSON_NAME = re.compile(r"\d\d_[a-z0-9_]+")
LAB_NAME = re.compile(r"lab_\d\d_[a-z0-9_]+")


class BuildError(Exception):
    """One sentence for the author: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Draft:
    """A notebook that is not yet run, and where it comes from and goes to."""

    source: str  # relative to the course's folder, with "/"
    target: str
    notebook: NotebookNode
    cell_numbers: tuple[int, ...]  # for each cell its place in the source, from 1


def is_lab(stem: str) -> bool:
    """Whether a source of this name (no suffix) is a lab."""
    return LAB_NAME.fullmatch(stem) is not None


def find_sources(root: Path, only: Iterable[str] = ()) -> list[Path]:
    """All sources in order of their names, or those whose names without `.py` are in `only`."""
    folder = root / "sources"
    if not folder.is_dir():
        raise BuildError(
            f"{folder} is missing: run the build from the course's folder, or name it with --root."
        )
    sources = sorted(folder.glob("*.py"))
    for source in sources:
        if not (LESSON_NAME.fullmatch(source.stem) or is_lab(source.stem)):
            raise BuildError(
                f"sources/{source.name} is neither a lesson nor a lab: name it like "
                "01_the_bill.py or lab_01_the_bill.py (small letters, digits and _)."
            )
    wanted = [name.removesuffix(".py") for name in only]
    return _pick(sources, wanted) if wanted else sources


def _pick(sources: Sequence[Path], wanted: Sequence[str]) -> list[Path]:
    known = [source.stem for source in sources]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BuildError(
            f"There is no source named {', '.join(unknown)}: --only takes names from "
            f"{', '.join(known) or 'sources/, which is empty'}."
        )
    return [source for source in sources if source.stem in wanted]


def kernel_settings(root: Path, scratch: Path, inherited: str = "") -> dict[str, str]:
    """Environment of every kernel that is run by a program: one thread, nothing kept in `root`.

    `scratch` is an empty folder for the learner's progress and IPython's own files; `inherited`
    is the PYTHONPATH that was there. `conftest.py` uses the same settings for nbval.
    """
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), inherited])),
        "COURSE_PROGRESS": str(scratch / "progress.json"),
        "IPYTHONDIR": str(scratch / "ipython"),  # no start-up files or history of the user's
        "OMP_NUM_THREADS": "1",
    }
