"""Read an answer before it runs: what in it could reach behind the check?

How it works: only the statements that will run are looked at (slices.py). An answer needs torch,
arithmetic and the course's modules; whoever brings `os`, `gc`, `exec`, `__globals__` or the checks'
own modules, or assigns to something imported, may have a reason, but a person should see it. Names
alone decide nothing: a flagged answer that fails has failed, one that passes "needs a look".

Left out: proof. A text can be written such that no reader of texts sees what it does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from utils.grading.course import Lab
from utils.grading.slices import Statement

USUAL_MODULES = frozenset(
    "__future__ abc bisect cmath collections contextlib copy dataclasses decimal enum fractions "
    "functools heapq itertools math numbers numpy operator random re statistics string time torch "
    "typing utils warnings weakref".split()
)
NOT_THESE = ("utils.checks", "utils.grad", "torch._")
STRONG_NAMES = frozenset(
    "__builtins__ __import__ __loader__ __spec__ breakpoint compile delattr eval exec exit globals "
    "input locals open quit setattr vars".split()
)
STRONG_ATTRIBUTES = frozenset(
    "_getframe builtins co_code ctypes f_back f_builtins f_globals f_locals gc gi_frame importlib "
    "inspect modules os settrace setprofile socket subprocess sys tb_frame threading".split()
)
TELLING_METHODS = frozenset(  # objects that deceive whoever compares, copies or drops them
    "__bool__ __del__ __eq__ __ge__ __getattribute__ __getstate__ __gt__ __instancecheck__ __le__ "
    "__lt__ __ne__ __reduce__ __reduce_ex__ __setstate__ __torch_dispatch__ "
    "__torch_function__".split()
)
HARMLESS_IN_SYS = ("maxsize", "float_info")
PLAIN_DUNDERS = frozenset(
    "__call__ __class__ __dict__ __doc__ __enter__ __exit__ __getitem__ __init__ __len__ __name__ "
    "__new__ __setitem__".split()
)


def suspicions(statements: Sequence[Statement], lab: Lab) -> list[str]:
    """What a person should look at, each in a few words; empty for an ordinary answer."""
    given = {line for cell in lab.cells for line in _imports_in(cell)} - {"sys"}
    if not any("def " in cell and ": Path" in cell for cell in lab.cells):
        given -= {"pathlib.Path"}  # imported by the first cell of every lab, to find the course
    imported = {
        alias.asname or alias.name.split(".")[0]
        for statement in statements
        for node in ast.walk(statement.node)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    found: list[str] = []
    for statement in statements:
        if statement.cell < 0:
            continue  # the lab's own
        for node in ast.walk(statement.node):
            found += _about(node, given, imported)
        found += _about_sys(statement.node)
    return list(dict.fromkeys(found))


def _about(node: ast.AST, given: set[str], imported: set[str]) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for name in _modules_of(node):
            is_plain_sys = name == "sys" and node.names[0].asname is None
            if name not in given and not _is_usual(name) and not is_plain_sys:
                yield f"imports `{name}`"
    elif isinstance(node, ast.Name):
        if node.id in STRONG_NAMES | TELLING_METHODS:
            yield f"uses `{node.id}`"
    elif isinstance(node, (ast.FunctionDef, ast.Constant)):
        name = node.name if isinstance(node, ast.FunctionDef) else node.value
        if isinstance(name, str) and name in TELLING_METHODS:
            yield f"defines `{name}`"
    elif isinstance(node, ast.Attribute):
        yield from _about_attribute(node, imported)
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
        if not (len(node.args) > 1 and isinstance(node.args[1], ast.Constant)):
            yield "uses `getattr` with a computed name"
        elif _is_strong(str(node.args[1].value)):
            yield f"uses `{node.args[1].value}`"


def _about_sys(statement: ast.stmt) -> Iterator[str]:
    """A largest number may be taken from `sys`, and nothing else."""
    harmless = {id(node.value) for node in ast.walk(statement)
                if isinstance(node, ast.Attribute) and node.attr in HARMLESS_IN_SYS}  # fmt: skip
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and node.id == "sys" and id(node) not in harmless:
            yield "uses `sys`"


def _about_attribute(node: ast.Attribute, imported: set[str]) -> Iterator[str]:
    if _is_strong(node.attr):
        yield f"uses `.{node.attr}`"
    root: ast.AST = node
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    if isinstance(root, ast.Name) and root.id in imported:
        if not isinstance(node.ctx, ast.Load):
            yield f"changes `{ast.unparse(node)}`"
        if root.id == "utils" and ast.unparse(node).startswith(NOT_THESE):
            yield f"uses `{ast.unparse(node)}`"


def _is_strong(attribute: str) -> bool:
    is_dunder = attribute.startswith("__") and attribute.endswith("__")
    return attribute in STRONG_ATTRIBUTES or (is_dunder and attribute not in PLAIN_DUNDERS)


def _is_usual(module: str) -> bool:
    return module.split(".")[0] in USUAL_MODULES and not module.startswith(NOT_THESE)


def _modules_of(node: ast.Import | ast.ImportFrom) -> Iterable[str]:
    """Full names: a module, and each name taken from one, which may be a module too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module or ''}.{alias.name}" for alias in node.names]


def _imports_in(cell: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(cell)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _modules_of(node)
