"""A notebook in a real kernel: cells run one by one, stopped and restarted as JupyterLab does it.

The kernel stands where a lesson's does and is not told where `utils` is: the notebook begins with
the course's own first cell. Left out: JupyterLab itself (`tests/browser`).
"""

from __future__ import annotations

import ast
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
from jupyter_client import KernelManager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, output_from_msg

from tests.rank_processes import descendants, gone, helpers, left_in
from utils.build.plan import kernel_settings

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "06_data_parallel.ipynb"
LIMIT_S = 180.0  # of a cell: longer than any machine needs
AGAIN_S = 30.0  # Python may lose an interruption; a second one soon would meet IPython's report


class Stop:
    """Presses the stop button some time after `when` (a cell prints "begin"), then every 30 s.

    `delays_s` are the moments of the first presses, counted from then.
    """

    def __init__(self, *delays_s: float, when: Callable[[NotebookNode], bool] | None = None):
        self.delays_s, self.when = list(delays_s), when or (lambda cell: "begin" in printed(cell))
        self._begin_s: float | None = None

    def is_due(self, cell: NotebookNode) -> bool:
        """Whether to press now."""
        now_s = time.monotonic()
        if self._begin_s is None and self.when(cell):
            self._begin_s = now_s
        if self._begin_s is None or now_s < self._begin_s + self.delays_s[0]:
            return False
        last_s = self.delays_s.pop(0)
        if not self.delays_s:
            self.delays_s.append(last_s + AGAIN_S)
        return True


def printed(cell: NotebookNode, stream: str = "stdout") -> str:
    """What a cell has printed so far."""
    return "".join(
        each.text for each in cell.outputs if each.output_type == "stream" and each.name == stream
    )


def errors_of(cell: NotebookNode) -> list[NotebookNode]:
    """The errors among a cell's outputs: at most one, unless someone pressed stop twice."""
    return [each for each in cell.outputs if each.output_type == "error"]


class Notebook:
    """Its kernel keeps temporary files in `folder`/temporary, progress in `folder`/progress.json.

    `node` has the cells that were run, with their outputs; `stray` is output of none of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder, folder / "temporary"
        self.temporary.mkdir()
        settings = {**kernel_settings(ROOT, folder), "TMPDIR": str(self.temporary)}
        environment = {**os.environ, **settings}
        del environment["PYTHONPATH"]  # JupyterLab's kernels have none
        self.node, self.stray = new_notebook(), ""
        self.stopped: set[int] = set()  # what ran when stop was pressed
        self.manager = KernelManager()
        self.manager.kernel_spec.argv[0] = sys.executable
        self.manager.start_kernel(env=environment, cwd=LESSON.parent)
        self._connect()
        lesson = nbformat.read(LESSON, as_version=4).cells
        self.run(next(cell.source for cell in lesson if cell.cell_type == "code"))

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return self.manager.provisioner.process.pid

    def run(self, source: str, stop: Stop | None = None) -> NotebookNode:
        """Append a cell, run it, and return it with its outputs; `stop` presses the button."""
        cell = new_code_cell(source)
        self.node.cells.append(cell)
        request, end_s = self.client.execute(source), time.monotonic() + LIMIT_S
        while True:
            assert time.monotonic() < end_s, f"The cell did not end in {LIMIT_S:g} s:\n{source}"
            if stop is not None and stop.is_due(cell):
                self.stopped |= self.started()
                self.manager.interrupt_kernel()
            try:
                message = self.client.get_iopub_msg(timeout=0.02)
            except queue.Empty:
                continue
            is_mine = message["parent_header"].get("msg_id") == request
            if is_mine and message["content"].get("execution_state") == "idle":
                return cell
            self._keep(message, cell if is_mine else None)

    def begin(self, source: str) -> None:
        """Run a cell that prints, and return when it has printed something."""
        self.client.execute(source)
        while self.client.get_iopub_msg(timeout=LIMIT_S)["msg_type"] != "stream":
            pass

    def run_again(self) -> list[NotebookNode]:
        """All cells once more, as after a restart."""
        sources = [cell.source for cell in self.node.cells]
        self.node = new_notebook()
        return [self.run(source) for source in sources]

    def restart(self, now: bool) -> None:
        """Ask the kernel to end and start a new one, as JupyterLab does, or kill it (`now`)."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=now)
        self._connect()

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)

    def ports(self) -> set[int]:
        """Where the kernel and all that it has started listen."""
        connections = [
            each
            for pid in (self.pid, *descendants(self.pid))
            for each in psutil.Process(pid).net_connections("inet")
        ]
        return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}

    def files(self) -> set[str]:
        """Names in the folder for temporary files."""
        return {each.name for each in self.temporary.iterdir()}

    def started(self) -> set[int]:
        """The processes that the kernel's cells have started, without idle helpers."""
        return descendants(self.pid) - helpers(self.pid)

    def has_ranks(self) -> bool:
        """Whether any of them is still there after a while, or was when stop was pressed."""
        return not gone(self.started() | self.stopped, within_s=20)

    def new_files(self, known: set[str]) -> list[str]:
        """Temporary files that stay."""
        return left_in(self.temporary, known=known)

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT_S)

    def _keep(self, message: dict, cell: NotebookNode | None) -> None:
        if message["msg_type"] not in ("stream", "error", "display_data", "execute_result"):
            return
        if cell is None:
            self.stray += str(message["content"])
        else:
            cell.outputs.append(output_from_msg(message))


@contextmanager
def left_as_found(notebook: Notebook, source: str, expected: object) -> Iterator[Notebook]:
    """Whatever is done inside leaves no process, no file, no port, and the next cell works.

    `source` is that cell, and `expected` equals what it prints, read as Python.
    """
    files, ports = notebook.files(), notebook.ports()
    yield notebook
    assert not notebook.has_ranks() and not notebook.new_files(files)
    assert notebook.ports() <= ports
    good = notebook.run(source)
    assert not errors_of(good) and ast.literal_eval(printed(good)) == expected
    assert notebook.stray == ""
