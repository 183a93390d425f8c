"""Show a function by reference: a line `# show: utils.costs.training_flops` becomes its source.

How it works: the module's file is read and parsed afresh at every build, and the lines of the
function or class (decorators included) are cut out, so the code that is read is the code that is
tested. `# show: <name> without docstring` leaves out the docstring of that function or class.

Left out: names that are only imported into a module (name the module that defines them),
constants, and definitions inside an `if` or `try`.
"""

from __future__ import annotations

import ast
import difflib
import re
import textwrap
from pathlib import Path

from utils.build.plan import BuildError

_ALMOST = re.compile(r"\s*#+\s*show\s*:", re.IGNORECASE)
_SHOW = re.compile(r"# show: (?P<name>\w+(?:\.\w+)+)(?P<bare> without docstring)?\s*")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def expand(text: str, root: Path) -> str:
    """Return a code cell's text with each `# show:` line replaced by the source it names."""
    return "\n".join(_expand_line(line, root) for line in text.split("\n"))


def _expand_line(line: str, root: Path) -> str:
    if not _ALMOST.match(line):
        return line
    found = _SHOW.fullmatch(line)
    if not found:
        raise BuildError(
            f"`{line.strip()}` cannot be read: write `# show: utils.module.name` or "
            "`# show: utils.module.name without docstring` at the start of a line."
        )
    return source_of(found["name"], root, with_docstring=not found["bare"])


def source_of(name: str, root: Path, with_docstring: bool = True) -> str:
    """Return the source of a function, class or method in `root`/utils, e.g. utils.costs.dollars.

    Raises BuildError, one sentence, for a name that is not there.
    """
    path, inner = _split(name, root)
    text = path.read_text(encoding="utf-8")
    try:
        node: ast.AST = ast.parse(text)
    except SyntaxError as error:
        raise BuildError(
            f"`{name}` cannot be shown: {path.name} is not valid Python (line "
            f"{error.lineno}: {error.msg}); mend it first."
        ) from None
    for part in inner:
        node = _member(node, part, name, path)
    assert isinstance(node, _Definition)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = text.splitlines()
    shown = lines[first - 1 : node.end_lineno]
    if not with_docstring and ast.get_docstring(node) is not None:
        shown = _without_docstring(lines, first, node, name)
    return textwrap.dedent("\n".join(shown))


def _split(name: str, root: Path) -> tuple[Path, list[str]]:
    """The file of the module in `name` and the names inside of it."""
    parts = name.split(".")
    if parts[0] != "utils":
        raise BuildError(
            f"`{name}` is not in utils/: only functions and classes of utils/ can be "
            "shown, because only they are tested."
        )
    for length in range(len(parts) - 1, 0, -1):
        base = root.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path, parts[length:]
    raise BuildError(f"`{name}` was not found: there is no file utils/{parts[1]}.py.")


def _member(node: ast.AST, part: str, name: str, path: Path) -> _Definition:
    members = {n.name: n for n in getattr(node, "body", []) if isinstance(n, _Definition)}
    if part not in members:
        near = difflib.get_close_matches(part, members, n=1)
        advice = (
            f"did you mean `{near[0]}`?"
            if near
            else ("name a function or class, and the module that defines it.")
        )
        raise BuildError(f"`{name}` was not found: {path.name} defines no `{part}`; {advice}")
    return members[part]


def _without_docstring(lines: list[str], first: int, node: _Definition, name: str) -> list[str]:
    docstring = node.body[0]
    begin, end = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
    prefix = lines[begin].encode()[: docstring.col_offset].decode()
    rest = lines[end - 1].encode()[docstring.end_col_offset :].decode()
    if prefix.strip() or rest.lstrip().startswith(";"):
        raise BuildError(
            f"The docstring of `{name}` shares its line with other code; give it "
            "lines of its own, or show it with the docstring."
        )
    after = lines[end : node.end_lineno]
    while after and not after[0].strip():
        after = after[1:]
    kept = after if len(node.body) > 1 else [f"{prefix}pass", *after]
    return [*lines[first - 1 : begin], *kept]
