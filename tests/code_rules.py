"""Rules for the course's Python files: each returns sentences, an empty list when all is well.

How it works: a file is given as its name from the root and its text; the syntax tree says the
rest. `tests/test_code_budgets.py` applies the rules to the tree and tries each on a bad file.

Left out: what ruff says already, and whether a name or a docstring is any good.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

MAX_LINES, MAX_FUNCTION_LINES = 200, 40
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_OF_A_RANK = re.compile(r"_?(rank|world_size|(process_)?group|mesh)", re.IGNORECASE)
_A_TIME = re.compile(r"(?<![a-z])(time|duration|elapsed|pause|delay)$")
_A_SIZE = re.compile(r"(?<![a-z])(memory|storage|footprint)$")


def size_problems(name: str, text: str) -> list[str]:
    """Files of at most 200 lines, functions of at most 40.

    Of a function that makes others only its own lines count: a wrong answer of a lab is often a
    closure over its switches.
    """
    found = []
    num_lines = text.rstrip("\n").count("\n") + 1
    if num_lines > MAX_LINES:
        found.append(f"{name} has {num_lines} lines; allowed are {MAX_LINES}: divide it")
    for node in functions_of(text):
        num_lines = own_lines(node)
        if num_lines > MAX_FUNCTION_LINES:
            found.append(
                f"{name}:{node.lineno} {node.name} has {num_lines} lines of its own; "
                f"allowed are {MAX_FUNCTION_LINES}: divide it"
            )
    return found


def own_lines(node: ast.AST) -> int:
    """Lines of a definition without those of the functions and classes inside it."""
    inside = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            inside += child.end_lineno - child.lineno + 1
    return node.end_lineno - node.lineno + 1 - inside


def functions_of(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file, nested ones too."""
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTIONS))


def hint_problems(name: str, text: str) -> list[str]:
    """Every argument and every result has a type, those of nested functions too."""
    found = []
    for node in functions_of(text):
        given = node.args
        named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        bare = [a.arg for a in named if a and not a.annotation and a.arg not in ("self", "cls")]
        bare += ["its result"] * (node.returns is None)
        found += [f"{name}:{node.lineno} {node.name}: {each} has no type" for each in bare]
    return found


def docstring_problems(name: str, text: str) -> list[str]:
    """A docstring at the top, and one for each public class, function and method.

    Not for a function inside a function, and not for a method of a class with a base, where it
    may stand for one that is described there.
    """
    tree = ast.parse(text)
    found = [] if ast.get_docstring(tree) else [f"{name} does not say at its top what it does"]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    plain = [node for node in classes if not node.bases and not node.name.startswith("_")]
    for node in [*tree.body, *(part for each in plain for part in each.body)]:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                found.append(f"{name}:{node.lineno} {node.name} has no docstring")
    return found


def global_problems(name: str, text: str) -> list[str]:
    """No rank, world size or group lives in a module: two runs in one process would share it."""
    found = []
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            word = target.id if isinstance(target, ast.Name) else ""
            if _OF_A_RANK.fullmatch(word) and not _is_type(getattr(node, "value", None)):
                found.append(f"{name}:{node.lineno} {word} is a global; pass it as an argument")
    return found


def _is_type(value: ast.AST | None) -> bool:
    """Whether a value names a type, as in `Group = dist.ProcessGroup | None`."""
    return isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)


def unit_problems(name: str, text: str) -> list[str]:
    """An argument or a field that holds a number of seconds or of bytes ends in its unit."""
    found = []
    for node in ast.walk(ast.parse(text)):
        word = node.arg if isinstance(node, ast.arg) else ""
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            word = node.target.id
        if not word or ast.unparse(node.annotation or ast.Constant("")) not in ("int", "float"):
            continue
        for pattern, unit in ((_A_TIME, "_s"), (_A_SIZE, "_bytes")):
            if pattern.search(word.lower().replace("_", " ")):
                found.append(f"{name}:{node.lineno} {word} is a number without a unit; add {unit}")
    return found


def imports_of(text: str) -> list[tuple[int, str]]:
    """Line and full dotted name of everything that a file imports, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def layer_problems(
    name: str, text: str, forbidden: Sequence[str], allowed: Sequence[str] = ()
) -> list[str]:
    """No import of what stands above: both name modules and mean all inside them too."""

    def inside(module: str, names: Sequence[str]) -> bool:
        return any(f"{module}.".startswith(f"{each}.") for each in names)

    return [
        f"{name}:{line} imports {module}, which stands above it"
        for line, module in imports_of(text)
        if inside(module, forbidden) and not inside(module, allowed)
    ]
