"""No function stands twice: what two modules need is called from one of them.

`tests/tree_shapes.py` finds them, whatever their variables and numbers are called. It is also
tried on functions that are the same, and on some that only look alike.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tree_shapes import num_statements, shaped_functions, twins

ROOT = Path(__file__).resolve().parents[1]
MIN_STATEMENTS = {"utils": 4, "tests": 6}  # a test may repeat some lines to be read alone

# Pairs that stay, each with its reason: (file and function, file and function) -> why.
ALLOWED: dict[frozenset[str], str] = {}


def texts(folder: str) -> dict[str, str]:
    """The Python files of a folder by their names."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths}


@pytest.mark.parametrize("folder", MIN_STATEMENTS)
def test_no_function_stands_in_two_files(folder: str) -> None:
    files = texts(folder)
    assert len(files) > 100
    pairs = [
        frozenset(f"{each.file}:{each.name}" for each in pair)
        for pair in twins(files, MIN_STATEMENTS[folder])
    ]
    found = [" is ".join(sorted(pair)) for pair in pairs if pair not in ALLOWED]
    assert not found, "\n  ".join(["keep one and call it from the other file:", *found])
    unused = [
        pair for pair in ALLOWED if all(folder in each for each in pair) and pair not in pairs
    ]
    assert not unused, f"no longer the same, take it out of ALLOWED: {unused}"


FIRST = '''
def total_bytes(tensors: list, factor: int = 2) -> int:
    """All bytes."""
    found = 0
    for tensor in tensors:
        if tensor.numel() > 3:
            found += factor * tensor.nbytes
    print("done", found)
    return found
'''
RENAMED = """
class Meter:
    @staticmethod
    def sum_up(parts, times=4):
        total = 7
        for part in parts:
            if part.numel() > 5:
                total += times * part.nbytes
        print("total", total)
        return total
"""
SAME = [
    FIRST,
    RENAMED.replace("    @staticmethod\n", ""),
    FIRST.replace("found = 0", "found: int = 0"),
]
OTHER = [
    FIRST.replace("tensor.nbytes", "tensor.itemsize"),
    FIRST.replace("print(", "log("),
    FIRST.replace("factor * tensor", "tensor * factor"),
    FIRST.replace("> 3", ">= 3"),
    FIRST.replace("3:", '"3":'),
    FIRST.replace("    return found", "    return factor"),
    FIRST.replace("def total", "@cache\ndef total"),
]


@pytest.mark.parametrize("text", SAME)
def test_the_same_under_other_names_is_found(text: str) -> None:
    ((first, second),) = twins({"a.py": FIRST, "b.py": text}, 6)
    assert first.shape == second.shape and {first.file, second.file} == {"a.py", "b.py"}


@pytest.mark.parametrize("text", OTHER)
def test_what_says_something_else_is_not(text: str) -> None:
    assert twins({"a.py": FIRST, "b.py": text}, 1) == []


def test_what_is_short_or_in_one_file_does_not_count() -> None:
    assert twins({"a.py": FIRST, "b.py": FIRST}, 7) == []
    assert twins({"a.py": FIRST + RENAMED}, 1) == []
    (one,) = shaped_functions("a.py", FIRST, 1)
    assert one.num_statements == 6 and one.name == "total_bytes"


def test_statements_are_counted_without_the_docstring() -> None:
    (node,) = ast.parse('def f():\n    """Text."""\n    x = 1\n    return x\n').body
    assert num_statements(node) == 2
