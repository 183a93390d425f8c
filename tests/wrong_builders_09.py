"""Wrong answers to lab 09: the solution with some of its code changed.

Functions of this file travel to the ranks by value, so it imports nothing of its neighbours that
they use.
"""

from tests.lab_source import ROOT, solution_functions
from utils.build.text import read_cells

LAB = "lab_09_yafsdp"
ANSWERS = {
    "09.1": "add_waits",
    "09.2": "first_overwrite",
    "09.3": "plan_buffers",
    "09.4": "mean_of_step",
    "09.5": "choose_buffers",
}
right = solution_functions(LAB)
_TEXTS = {
    name: next(
        cell.text for cell in read_cells(ROOT / "sources" / f"{LAB}.py", ROOT)
        if f"def {name}(" in cell.text and cell.kind == "code"
    )
    for name in ANSWERS.values()
}  # fmt: skip


def mutant(key, *changes):
    """The solution with pieces of its code replaced: old, new, old, new, ..."""
    name = ANSWERS[key]
    text = _TEXTS[name]
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text, f"{name} no longer contains {old!r}"
        text = text.replace(old, new)
    namespace = dict(right)
    exec(compile(text, name, "exec"), namespace)
    return namespace[name]
