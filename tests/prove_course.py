"""Small made-up courses for `utils.prove`, and the command as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from utils.proving.records import Record

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = """[tool.pytest.ini_options]
addopts = ["--nbval-current-env", "--nbval-cell-timeout={}"]
"""
EVERY_SECOND_TIME = (
    "from pathlib import Path\n"
    "count = Path('count.txt')\n"
    "times = int(count.read_text()) if count.exists() else 0\n"
    "count.write_text(str(times + 1))\n"
    "print(times % 2)"
)
HANGS = "from pathlib import Path\nimport time\nPath('begun.txt').touch()\ntime.sleep(600)"


def make_course(folder: Path, cell_timeout_s: int = 120, **notebooks: Sequence[tuple]) -> Path:
    """A course of notebooks {name: (code, what it is stored to print), ...}; lab_* are labs."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(SETTINGS.format(cell_timeout_s))
    for name, cells in notebooks.items():
        place = folder / ("labs" if name.startswith("lab_") else "notebooks")
        place.mkdir(exist_ok=True)
        made = [new_markdown_cell("# A title"), *(_cell(*cell) for cell in cells)]
        nbformat.write(new_notebook(cells=made), place / f"{name}.ipynb")
    return folder


def _cell(code: str, printed: str, *tags: str) -> nbformat.NotebookNode:
    outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
    return new_code_cell(
        code, outputs=outputs, execution_count=1, metadata={"tags": list(tags)} if tags else {}
    )


def start_prove(*words: object) -> subprocess.Popen[str]:
    """The command in a process of its own, as from a terminal: Ctrl-C counts."""
    return subprocess.Popen(
        [sys.executable, "-m", "utils.prove", *map(str, words)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def a_record(**changes: object) -> Record:
    """A repetition that passed, with changes."""
    values: dict = dict(
        run="r", number=1, folder=str(ROOT), is_whole=True, num_cores=2, num_load=0, seed=None,
        passed=7, failed=0, failing=[], seconds=12.0, notebook_s={"notebooks/a.ipynb": 5.0},
        order=["notebooks/a.ipynb"], code_version="abc", python="3.11.7", begun="2026-01-01",
    )  # fmt: skip
    return Record(**values | changes)
