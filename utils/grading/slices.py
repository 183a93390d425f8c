"""Take from a notebook the answer to one exercise and what the answer uses, and nothing else.

How it works: each top-level statement is asked which names it binds and which it needs (Python's
own symbol tables say so). From the answer's name on, the statements that bind the needed names are
collected, from the submission or, if the learner deleted them, from the course's lab. A statement
such as `table["x"] = 1` or `names.append(x)` counts as binding `table`, `names`; not, however,
when that name is imported: so an answer never brings along a patch of torch or of the checks.
As in a notebook run from top to bottom, what stands below the exercise's check is not looked at,
unless the answer itself is only found there.

Left out: cells that are no Python, the order in which a learner ran the cells, prints and
experiments, all of which the answer does not need.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from utils.grading.course import Asked, Lab, checks_in

STUB = 'raise NotImplementedError("your turn")'
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.GeneratorExp,
          ast.ListComp, ast.SetComp, ast.DictComp)  # fmt: skip
_BAD_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Statement:
    """A top-level statement of cell number `cell` (from 0; the lab's own have -1)."""

    node: ast.stmt
    cell: int
    text: str  # of the whole cell
    binds: frozenset[str]
    touches: frozenset[str]
    needs: frozenset[str]
    imports: bool


@dataclass(frozen=True)
class Slice:
    """The answer's statements in order; none, with a `reason`, if there is no answer."""

    statements: tuple[Statement, ...] = ()
    reason: str = ""
    is_wrong: bool = False  # an answer that cannot be read, not one that is missing


def slice_for(asked: Asked, lab: Lab, cells: Sequence[str]) -> Slice:
    """What the submission's `cells` have for one exercise of `lab`."""
    statements, problems = _read(cells)
    keys = [{each.key for each in checks_in(cell)} for cell in cells]
    checked_at = [k for k, in_cell in enumerate(keys) if asked.key in in_cell]
    above = [s for s in statements if checked_at and s.cell <= checked_at[-1]]
    for considered in (above, statements):
        if _is_answered(asked.name, considered):
            given = [s for s in _read(lab.cells, is_lab=True)[0] if not _is_stub(s)]
            return Slice(tuple(_closure(asked.name, given, considered)))
    for number, problem in problems:
        if f"def {asked.name}" in cells[number] or f"{asked.name} =" in cells[number]:
            return Slice(reason=f"The cell with `{asked.name}` is no valid Python: {problem}.",
                         is_wrong=True)  # fmt: skip
    return Slice(reason=_missing(asked, statements, cells))


def _missing(asked: Asked, statements: Sequence[Statement], cells: Sequence[str]) -> str:
    if any(asked.name in s.binds for s in statements):
        return ""  # the stub
    others = {c.name for cell in cells for c in checks_in(cell) if c.key == asked.key}
    found = f' check("{asked.key}", ...) names {", ".join(sorted(others - {""}))}.' * bool(others)
    return f"The file has no `{asked.name}`, which is the name this exercise asks for.{found}"


def _is_answered(name: str, statements: Sequence[Statement]) -> bool:
    last = [s for s in statements if name in s.binds][-1:]
    return bool(last) and not _is_stub(last[0])


def _is_stub(statement: Statement) -> bool:
    """A function that only raises what the lab's stub raises, or a name for nothing."""
    node = statement.node
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        return node.value.value in (None, Ellipsis)
    if not isinstance(node, ast.FunctionDef):
        return False
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return len(body) == 1 and ast.unparse(body[0]) == ast.unparse(ast.parse(STUB))


def _closure(name: str, given: Sequence[Statement], own: Sequence[Statement]) -> list[Statement]:
    chosen: set[int] = set()
    every, wanted, seen = [*given, *own], [name], {name}
    star = [k for k, s in enumerate(every) if "*" in s.binds and k >= len(given)]
    while wanted:
        name = wanted.pop()
        binding = [k for k, s in enumerate(every) if name in s.binds]
        mine = [k for k in binding if k >= len(given)]
        binding = mine or binding
        if binding and not any(every[k].imports for k in binding):
            binding += [k for k, s in enumerate(every) if name in s.touches and k >= len(given)]
        for k in binding or star:
            if k not in chosen:
                chosen.add(k)
                new = every[k].needs - seen
                seen |= new
                wanted += sorted(new)
    return [every[k] for k in sorted(chosen)]


def _read(
    cells: Sequence[str], is_lab: bool = False
) -> tuple[list[Statement], list[tuple[int, str]]]:
    statements, problems = [], []
    for number, cell in enumerate(cells):
        try:
            for node in ast.parse(cell).body:
                statements.append(_statement(node, -1 if is_lab else number, cell))
        except _BAD_PYTHON as error:
            line = f" (line {error.lineno} of the cell)" if getattr(error, "lineno", None) else ""
            problems.append((number, f"{getattr(error, 'msg', type(error).__name__)}{line}"))
    return statements, problems


def _statement(node: ast.stmt, cell: int, text: str) -> Statement:
    binds: set[str] = set()
    touches: set[str] = set()
    for each in _outer(node):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            binds.add(each.id)
        elif isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            binds.add(each.name)
        elif isinstance(each, ast.alias):
            binds.add(each.asname or each.name.split(".")[0])
        elif isinstance(each, (ast.Attribute, ast.Subscript)):
            is_call = isinstance(node, ast.Expr) and getattr(node.value, "func", None) is each
            if isinstance(each.ctx, ast.Store) or is_call:
                touches |= {n.id for n in [_root(each)] if isinstance(n, ast.Name)}
    needs = _globals_of(symtable.symtable(ast.unparse(node), "cell", "exec"))
    imports = isinstance(node, (ast.Import, ast.ImportFrom))
    return Statement(node, cell, text, frozenset(binds), frozenset(touches), needs, imports)


def _outer(node: ast.AST) -> Iterable[ast.AST]:
    """The node and all in it that belongs to the notebook's own scope."""
    yield node
    if not isinstance(node, _INNER):
        for child in ast.iter_child_nodes(node):
            yield from _outer(child)


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node


def _globals_of(table: symtable.SymbolTable) -> frozenset[str]:
    is_module = table.get_type() == "module"
    own = {s.get_name() for s in table.get_symbols()
           if s.is_referenced() and (is_module or s.is_global())}  # fmt: skip
    return frozenset(own.union(*map(_globals_of, table.get_children())))
