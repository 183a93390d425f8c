"""Read a submitted file, which may be anything, as a list of code cells.

How it works: nothing is trusted: not the size, not that it is a file, JSON or a notebook. What is
wrong is said in one sentence. Lines for IPython alone (`%time`, `!pip`) become comments, so that
line numbers stay what the learner sees.
Left out: outputs, cell ids and metadata: a learner may have changed all of them.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

MAX_FILE_BYTES = 20 * 2**20
_MAGIC = re.compile(r"^(\s*)([%!?]|\w[\w.]*\?{1,2}\s*$)")


class SubmissionError(Exception):
    """One sentence for the table: what is wrong with a submitted file."""


def read_submission(path: Path) -> bytes:
    """The bytes of a submitted file; raises SubmissionError."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise SubmissionError("This is not a plain file (a link, a folder or a device).")
        if found.st_size > MAX_FILE_BYTES:
            raise SubmissionError(
                f"The file has {found.st_size / 2**20:,.0f} MiB, and at most "
                f"{MAX_FILE_BYTES / 2**20:.0f} are read: clear its outputs and hand it in again."
            )
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise SubmissionError(f"The file cannot be read: {error.strerror or error}.") from None


def code_cells(content: bytes) -> list[str]:
    """The sources of a notebook's code cells, in order; raises SubmissionError."""
    if not content.strip():
        raise SubmissionError("The file is empty.")
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError):
        raise SubmissionError("The file is not a notebook: it is damaged or cut short.") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise SubmissionError("The file is not a notebook of this course's format (nbformat 4).")
    return [
        _plain_python(_text(cell.get("source")))
        for cell in cells
        if isinstance(cell, dict) and cell.get("cell_type") == "code"
    ]


def _text(source: object) -> str:
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def _plain_python(source: str) -> str:
    if source.lstrip().startswith("%%"):  # the whole cell belongs to another language or to IPython
        return ""
    lines = source.split("\n")
    return "\n".join(_MAGIC.sub(r"\1pass  # \2", line, count=1) for line in lines)
