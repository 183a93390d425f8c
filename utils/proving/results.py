"""What pytest wrote for machines (`--junitxml`), as counts and names.

Left out: why a cell failed; that is in the whole output, which a failing repetition keeps.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Results:
    """Counts per notebook, names of what failed, seconds per notebook (its kernel's start too)."""

    passed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    failing: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def order(self) -> list[str]:
        """The notebooks as they were run."""
        return list(self.seconds)


def read_results(path: Path) -> Results | None:
    """None when pytest did not get as far as writing it."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return None
    results = Results()
    for case in cases:
        _add(results, case)
    return results


def _add(results: Results, case: ElementTree.Element) -> None:
    """One cell; a notebook that pytest could not collect is a case without a class."""
    name = case.get("name", "?")
    path = (case.get("file") or name).replace("\\", "/")
    results.seconds[path] = results.seconds.get(path, 0.0) + float(case.get("time", 0))
    if case.find("failure") is not None or case.find("error") is not None:
        is_cell = bool(case.get("classname"))
        results.failed[path] += is_cell
        results.failing.append(f"{path}::{name}" if is_cell else f"{path} (not readable)")
    elif case.find("skipped") is None:
        results.passed[path] += 1


def complaints(results: Results, order: list[str], num_cells: dict[str, int]) -> list[str]:
    """What is wrong although no cell says so: cells that were not compared, another order."""
    found = []
    for path in order:
        compared = results.passed[path] + results.failed[path]
        if compared < num_cells[path] or not compared:
            found.append(f"{path} ({compared} of {num_cells[path]} cells compared)")
    if results.order != order and not found:
        found.append("pytest did not keep the order of the notebooks")
    return found
