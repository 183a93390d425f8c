"""Load an answer from its statements, as a module of its own called `answer`.

How it works: each statement is compiled under the name of its cell, and the cell's text is handed
to linecache, so a check's message can quote the learner's line.
"""

from __future__ import annotations

import ast
import linecache
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from utils.checks.blame import verdict_on
from utils.checks.helpers import NotYet
from utils.grading.slices import Statement


class Failed(NotYet):
    """What a learner's code did in another process, with the engine's status and sentence."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Answer:
    """The statements of an answer and its name; can be sent to another process."""

    name: str
    statements: tuple[Statement, ...]

    def load(self, judge: Callable) -> Any:
        """Run the statements; raises Failed for whatever they raise, SystemExit included."""
        module = sys.modules["answer"] = types.ModuleType("answer")
        try:
            for statement in self.statements:
                _run(statement, module.__dict__)
            return module.__dict__[self.name]
        except BaseException as error:
            raise Failed(*verdict_on(error, judge, None)) from None


def _run(statement: Statement, names: dict[str, Any]) -> None:
    file = f"cell {statement.cell + 1}"
    lines = statement.text.splitlines(keepends=True)
    linecache.cache[file] = (len(statement.text), None, lines, file)
    exec(compile(ast.Module([statement.node], []), file, "exec"), names)
