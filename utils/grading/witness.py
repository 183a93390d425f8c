"""Was anything changed that a check stands on? Compared before and after a learner's code ran.

How it works: a note of what each name means in the course's modules, in torch's main ones, in
Python's built-ins and in a few classes; for functions also of their code. It is compared by
identity. A patch that is still there when the check has ended is found; one that was put back in
time is not (screen.py looks for the tools that this takes).
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

_OTHERS = (
    "builtins math random torch torch.nn torch.nn.functional torch.autograd torch.distributed "
    "torch.testing torch.optim torch.utils.checkpoint contextlib functools threading"
).split()
_CLASSES = ("torch:Tensor", "torch.nn:Module", "torch.nn:Parameter", "torch.optim:Optimizer")
_PLAIN = (bool, int, float, str, type(None))
Meaning = tuple[Any, ...]


def note() -> dict[str, Meaning]:
    """What every watched name means now."""
    return {f"{place}.{name}": _meaning(value) for place, names in _places().items()
            for name, value in names.items() if not _is_state(name, value)}  # fmt: skip


def changes(before: dict[str, Meaning]) -> list[str]:
    """The watched names that mean something else than when `before` was noted."""
    after = note()
    changed = [name for name, meaning in before.items() if not _same(meaning, after.get(name))]
    return sorted(f"`{name}` was changed" for name in changed)


def _places() -> dict[str, dict[str, Any]]:
    modules = {
        name: module for name, module in list(sys.modules.items())
        if module is not None and (name.startswith("utils.") or name in _OTHERS)
    }  # fmt: skip
    places = {name: dict(vars(module)) for name, module in modules.items()}
    for place, module in modules.items():
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == place and place.startswith("utils."):
                places[f"{place}.{name}"] = dict(vars(value))
    for each in _CLASSES:
        module, _, name = each.partition(":")
        if module in sys.modules:
            places[f"{module}.{name}"] = dict(vars(getattr(sys.modules[module], name)))
    return places


def _is_state(name: str, value: Any) -> bool:
    """What changes of itself: a module's private notes (`_warned = False`), Python's own names."""
    return name.startswith("__") or (name.startswith("_") and isinstance(value, _PLAIN))


def _meaning(value: Any) -> Meaning:
    if isinstance(value, FunctionType):
        return value, value.__code__, value.__defaults__, value.__globals__
    if isinstance(value, _PLAIN):
        return (type(value), value)
    return (value,)


def _same(one: Meaning, other: Meaning | None) -> bool:
    if other is None or len(one) != len(other):
        return False
    if len(one) == 2:  # a plain value: equal, wherever it is stored
        return one[0] is other[0] and (one[1] == other[1] or one[1] != one[1])
    return all(a is b for a, b in zip(one, other, strict=True))
