"""Run a notebook and keep of its outputs what is the same for every reader.

How it works: nbclient runs the cells in a kernel of this very Python, with the settings that
nbval uses too, in a folder of the notebook's own beside the real one. A notebook that passes the
time limit is tried once more (a client may miss a kernel's last message). Then neighbouring
pieces of printed text are joined, because where they are cut is chance, and live widget views
are taken out, because without a kernel they show an error instead of the picture beside them.

Left out: comparing outputs (`pytest --nbval`) and judging style (`utils.build.rules`).
"""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets import default

from utils.build.plan import BuildError, Draft, kernel_settings

CELL_TIMEOUT_S = 120  # nbval's limit in pyproject.toml: a slower cell could be built, not tested
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
NUM_ATTEMPTS = 2


class _ThisPythonOnly(KernelSpecManager):
    """Knows one kernel, this Python: a user may have a "python3" of another environment."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class _CourseKernel(AsyncKernelManager):
    @default("kernel_spec_manager")
    def _only_this_python(self) -> KernelSpecManager:
        return _ThisPythonOnly(parent=self)


def run_draft(
    draft: Draft, folder: Path, root: Path, timeout_s: float = CELL_TIMEOUT_S
) -> NotebookNode:
    """Return the draft's notebook with outputs, run in `folder` with `root`/utils importable.

    Raises BuildError for a cell that fails, for a kernel that dies, and when a cell passes
    `timeout_s` seconds twice.
    """
    for attempt in range(1, NUM_ATTEMPTS + 1):
        notebook = copy.deepcopy(draft.notebook)
        started: list[int] = []
        try:
            _run(notebook, folder, root, timeout_s, started)
            return clean(notebook)
        except CellExecutionError as error:
            words = str(error.evalue).strip().split("\n")[0]
            raise _failure(draft, started, f"{error.ename}: {words}") from None
        except (DeadKernelError, AssertionError):
            # nbclient stops the kernel on Ctrl-C, and then trips over an assertion of its own.
            raise _failure(draft, started, "the kernel died or was interrupted") from None
        except (CellTimeoutError, RuntimeError) as error:
            # A kernel that does not start in time raises a bare RuntimeError.
            problem = str(error).split("\n")[0]
            if isinstance(error, CellTimeoutError):
                problem = f"the cell took more than {timeout_s:g} s"
            if attempt == NUM_ATTEMPTS:
                raise _failure(draft, started, f"{problem}, twice") from None
    raise AssertionError("unreachable")


def _run(
    notebook: NotebookNode, folder: Path, root: Path, timeout_s: float, started: list[int]
) -> None:
    def note(cell: NotebookNode, cell_index: int) -> None:
        started.append(cell_index)

    with tempfile.TemporaryDirectory(prefix="course-") as scratch:
        client = NotebookClient(
            notebook,
            timeout=timeout_s,
            kernel_name="python3",
            kernel_manager_class=_CourseKernel,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            store_widget_state=False,
            on_cell_start=note,
            # At its usual level a kernel warns that messages on this computer are not encrypted.
            extra_arguments=["--log-level=CRITICAL"],
        )
        client.execute(env=environment(root, Path(scratch)))


def environment(root: Path, scratch: Path) -> dict[str, str]:
    """The kernel's whole environment; a user's plotting backend would hide inline figures."""
    kept = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    return kept | kernel_settings(root, scratch, kept.get("PYTHONPATH", ""))


def _failure(draft: Draft, started: list[int], problem: str) -> BuildError:
    if not started:
        return BuildError(f"{draft.source}: its kernel did not start ({problem}).")
    index = started[-1]
    first_line = draft.notebook.cells[index].source.strip().split("\n")[0]
    return BuildError(
        f"{draft.source}, cell {draft.cell_numbers[index]} (`{first_line}`), run for "
        f"{draft.target}: {problem}. Nothing was written."
    )


def clean(notebook: NotebookNode) -> NotebookNode:
    """Remove what changes from run to run or means nothing without a kernel; returns `notebook`."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
                output.get("metadata", {}).pop(WIDGET_VIEW, None)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Join neighbouring texts of one stream; texts around a figure stay where they are."""
    kept: list[Any] = []
    for output in outputs:
        same = kept and output.output_type == "stream" == kept[-1].output_type
        if same and kept[-1].name == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept
