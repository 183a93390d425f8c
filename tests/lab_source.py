"""The functions of a lab's solution, taken from its source: what the checks must accept."""

import ast
from collections.abc import Callable
from pathlib import Path

from utils.build.text import read_cells

ROOT = Path(__file__).resolve().parents[1]


def solution_functions(stem: str) -> dict[str, object]:
    """Run the imports, functions and classes of sources/<stem>.py and return their names."""
    namespace: dict[str, object] = {"__name__": stem}
    for cell in read_cells(ROOT / "sources" / f"{stem}.py", ROOT):
        if cell.kind != "code":
            continue
        wanted = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        kept = [node for node in ast.parse(cell.text).body if isinstance(node, wanted)]
        exec(compile(ast.Module(kept, []), stem, "exec"), namespace)
    return namespace


def stub_keys(stem: str) -> list[str]:
    """The exercise keys that the lab's check cells name, in order."""
    cells = read_cells(ROOT / "sources" / f"{stem}.py", ROOT)
    calls = [line for cell in cells for line in cell.text.splitlines() if line.startswith("check(")]
    return [line.split('"')[1] for line in calls]


def make_mutant(stem: str, answers: dict[str, str]) -> Callable[..., object]:
    """Return `mutant(key, old, new, old, new, ...)`: a lab's solution, pieces of it replaced.

    `answers` maps an exercise's key to the name of its function.
    """
    right = solution_functions(stem)
    cells = [cell for cell in read_cells(ROOT / "sources" / f"{stem}.py", ROOT)
             if cell.kind == "code"]  # fmt: skip

    def mutant(key: str, *changes: str) -> object:
        name = answers[key]
        text = next(cell.text for cell in cells if f"def {name}(" in cell.text)
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text, f"{name} no longer contains {old!r}"
            text = text.replace(old, new)
        namespace = dict(right)
        exec(compile(text, name, "exec"), namespace)
        return namespace[name]

    return mutant
