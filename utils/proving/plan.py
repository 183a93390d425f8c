"""What is repeated, and under which conditions: notebooks, their order, visible cores, load.

Left out: anything that needs rights of an administrator (clock speed, memory limits, priorities).
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.build.plan import FOLDERS

MAX_LOAD = 64


class UsageError(ValueError):
    """One sentence: what was asked wrongly, and what to ask instead."""


@dataclass(frozen=True)
class Conditions:
    """What a repetition runs under; `cores` are numbers, or empty where the system has none."""

    cores: tuple[int, ...] = ()
    num_load: int = 0
    seed: int | None = None

    def load_cores(self) -> list[int]:
        """For each busy process a core that the notebooks have too, so that it really competes."""
        cores = self.cores or (-1,)
        return [cores[number % len(cores)] for number in range(self.num_load)]


@dataclass(frozen=True)
class Plan:
    """`notebooks` are relative to `folder`; `is_whole` when all that the folder has are in."""

    folder: Path
    notebooks: tuple[str, ...]
    is_whole: bool
    conditions: Conditions
    times: int = 1
    within_s: float = math.inf
    stops: bool = False


def visible_cores(num_cores: int | None) -> tuple[int, ...]:
    """The first `num_cores` of the cores that this process may use; all of them for None."""
    if not hasattr(os, "sched_setaffinity"):
        if num_cores is None:
            return ()
        raise UsageError("This system cannot limit a process's cores: leave --cores out.")
    cores = sorted(os.sched_getaffinity(0))
    if num_cores is None:
        return tuple(cores)
    if not 1 <= num_cores <= len(cores):
        raise UsageError(f"--cores is {num_cores}; this machine can show 1 to {len(cores)}.")
    return tuple(cores[:num_cores])


def find_notebooks(folder: Path, only: Sequence[str] = ()) -> tuple[str, ...]:
    """Notebooks below notebooks/, labs/ and solutions/ in pytest's order, or those named.

    `only` takes names like 06_data_parallel (a lab's name means lab and solution) and paths like
    labs/lab_06_data_parallel.ipynb. Raises UsageError for a name that is not there.
    """
    found = [
        path.relative_to(folder).as_posix()
        for part in FOLDERS
        for path in sorted((folder / part).rglob("*.ipynb"))
        if not any(name.startswith(".") for name in path.relative_to(folder).parts)
    ]
    if not found:
        raise UsageError(f"{folder} has no notebooks in {', '.join(FOLDERS)}; name the course's "
                         "folder with --folder.")  # fmt: skip
    named = {name: [path for path in found if name in _names(path)] for name in only}
    missing = [name for name, paths in named.items() if not paths]
    if missing:
        known = ", ".join(dict.fromkeys(Path(path).stem for path in found))
        raise UsageError(f"There is no notebook named {missing[0]!r}; take one of {known}.")
    return tuple(path for path in found if not only or any(path in named[name] for name in only))


def orders(plan: Plan) -> Iterator[list[str]]:
    """For each repetition the order of the notebooks: the usual one, or drawn from the seed."""
    chance = random.Random(plan.conditions.seed)
    before: list[str] = []
    while True:
        order = list(plan.notebooks)
        if plan.conditions.seed is not None:
            chance.shuffle(order)
            while order == before and len(order) > 1:
                chance.shuffle(order)
        yield order
        before = order


def num_code_cells(path: Path) -> int:
    """How many cells a strict run has to compare. Raises UsageError for what is no notebook."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return sum(cell["cell_type"] == "code" for cell in cells)
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{path} cannot be read as a notebook; build it again.") from None


def _names(path: str) -> tuple[str, ...]:
    return path, path.removesuffix(".ipynb"), Path(path).stem, Path(path).name
