"""Functions that say the same: their syntax trees, with the names that do not matter taken out.

How it works: a function's shape is its tree without docstring and types, in which each name that
the function itself makes (arguments, variables, functions inside it) is replaced by its number, and
each constant by its type. Names from outside, attributes and keywords stay: who calls something
else says something else.

Left out: a piece of one function that stands in another.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Shaped:
    """A function: its file, its name, the statements in it, and its shape."""

    file: str
    name: str
    num_statements: int
    shape: str


class _Normal(ast.NodeTransformer):
    """Takes out of a function's tree what two functions may differ in."""

    def __init__(self, made: set[str]) -> None:
        self._made, self._numbers = made, {}

    def _word(self, name: str) -> str:
        number = self._numbers.setdefault(name, len(self._numbers))
        return f"name{number}" if name in self._made else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._word(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._word(node.arg))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(type(node.value).__name__)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        value = self.visit(node.value) if node.value else ast.Constant(None)
        return ast.Assign([self.visit(node.target)], value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        return ast.FunctionDef(
            "function",
            self.visit(node.args),
            [self.visit(each) for each in body],
            [self.visit(each) for each in node.decorator_list],
            type_params=[],
        )

    visit_AsyncFunctionDef = visit_FunctionDef


def shape_of(node: ast.AST) -> str:
    """The shape of a function as a text; equal texts say the same."""
    made = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    made |= {
        each.id
        for each in ast.walk(node)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    made |= {each.name for each in ast.walk(node) if isinstance(each, FUNCTIONS)}
    return ast.dump(_Normal(made).visit(node))


def num_statements(node: ast.AST) -> int:
    """Statements in a function, without its docstring and without itself."""
    inside = sum(isinstance(each, ast.stmt) for each in ast.walk(node)) - 1
    return inside - (ast.get_docstring(node) is not None)


def shaped_functions(file: str, text: str, min_statements: int) -> list[Shaped]:
    """The functions and methods of a file that have so many statements at least."""
    tree = ast.parse(text)
    nodes = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    counted = [(node, num_statements(node)) for node in nodes]
    long = [(node.name, node, count) for node, count in counted if count >= min_statements]
    return [Shaped(file, name, count, shape_of(node)) for name, node, count in long]


def twins(files: Mapping[str, str], min_statements: int) -> list[tuple[Shaped, Shaped]]:
    """Pairs of functions of two files that have one shape; `files` holds texts by file name."""
    by_shape = defaultdict(list)
    for file, text in files.items():
        for each in shaped_functions(file, text, min_statements):
            by_shape[each.shape].append(each)
    pairs = (pair for group in by_shape.values() for pair in combinations(group, 2))
    return [(first, second) for first, second in pairs if first.file != second.file]
