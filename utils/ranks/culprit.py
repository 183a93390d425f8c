"""Which value cannot travel to another process, and what in it: for one clear sentence.

How it works: what failed as a whole is tried part by part, down to the innermost part that fails:
items of collections, attributes of objects, variables that a function takes from around it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

MAX_DEPTH = 4
ADVICE = "files, locks and generators must be made inside the worker, and results be plain data"


class Unsendable(TypeError):
    """A value that no other process can use; the text says what it is and what to do."""


def culprit(named: Iterable[tuple[str, Any]], write: Callable[[Any], object]) -> str:
    """The first of the named values that `write` refuses, and why; "" if it takes all of them."""
    for name, value in named:
        depth, reason = _innermost(value, write, 0)
        if reason:
            return f"{name} {'holds' if depth else 'is'} {reason}"
    return ""


def used_by(function: Callable) -> Iterator[tuple[str, Any]]:
    """The variables that a function takes from around it, by name; of an object its attributes."""
    code = getattr(function, "__code__", None)
    if code is None:
        yield from getattr(function, "__dict__", {}).items()
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield name, cell.cell_contents
    for name in dict.fromkeys(_names(code)):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from (("a default value", value) for value in defaults)


def _innermost(value: Any, write: Callable[[Any], object], depth: int) -> tuple[int, str]:
    """How deep in `value` the innermost part is that fails, and what it is; "" if nothing fails."""
    try:
        write(value)
        return depth, ""
    except Exception as error:
        for part in _parts(value) if depth < MAX_DEPTH else ():
            found = _innermost(part, write, depth + 1)
            if found[1]:
                return found
        if isinstance(error, Unsendable):
            return depth, str(error)
        return depth, f"an object of type {_kind(value)}; {ADVICE}"


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, types.FunctionType):
        return [part for _, part in used_by(value)]
    return list(getattr(value, "__dict__", {}).values())


def _kind(value: Any) -> str:
    kind = type(value)
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
