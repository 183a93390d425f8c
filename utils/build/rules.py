"""What every stored notebook must be like, whoever wrote it: the rules of `tests/`.

How it works: each rule takes a notebook (nbformat 4, as read from its file) and returns a list of
sentences, empty when all is well. They keep strict nbval honest (everything was run, nothing is
exempt from comparison, nothing changes by chance) and files readable without a kernel.

Left out: the style budgets (`utils.build.budgets`) and equality with the source (`utils.build`).
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from utils.build.run import WIDGET_VIEW
from utils.build.text import BEGIN, END, STUB

MAX_FILE_BYTES = 600_000
MIN_LEAK_CHARACTERS = 16  # shorter lines, such as `return total`, say nothing
_EXEMPTION = re.compile(r"^\s*#\s*(NBVAL|PYTEST_VALIDATE)_\w+", re.MULTILINE)
_SYSTEM_PATH = re.compile(r"(?<![\w.:/~-])/(?:home|root|tmp|usr|opt|var|mnt|Users)/\w")
_WINDOWS_PATH = re.compile(r"\b[A-Z]:\\\w")
# In two pieces, so that no file of the course holds such a name.
_REGISTRY = re.compile("py" r"pi\b|python" r"hosted\.org|conda\." r"anaconda", re.IGNORECASE)


def _code_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Each code cell with its place among all cells, from 1."""
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            yield number, cell


def execution_problems(notebook: NotebookNode) -> list[str]:
    """Every code cell ran once, in order, without an error that it does not announce by a tag."""
    found = []
    for count, (number, cell) in enumerate(_code_cells(notebook), start=1):
        if cell.execution_count != count:
            found.append(f"cell {number} has execution count {cell.execution_count}, not {count}")
        may_raise = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            if output.output_type == "error" and not may_raise:
                found.append(f"cell {number} shows an error: {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {number} wrote to stderr: {output.text.strip()[:80]}")
    return found


def exemption_problems(notebook: NotebookNode) -> list[str]:
    """No cell asks nbval not to run or not to compare it."""
    found = []
    for number, cell in _code_cells(notebook):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag.startswith("nbval")]
        comments = [match.group().strip() for match in _EXEMPTION.finditer(cell.source)]
        found += [f"cell {number} carries {mark}; nothing is exempt" for mark in tags + comments]
    return found


def chance_problems(notebook: NotebookNode) -> list[str]:
    """Nothing is stored that changes from build to build or needs a kernel to be seen."""
    found = []
    if "widgets" in notebook.metadata:
        found.append("the notebook stores widget state")
    if notebook.metadata.get("language_info") != {"name": "python"}:
        found.append("language_info says more than the name python")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernelspec is not python3")
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) != len(ids):
        found.append("cell ids are missing or not unique")
    for number, cell in enumerate(notebook.cells, start=1):
        if "execution" in cell.metadata:
            found.append(f"cell {number} stores execution times")
    for number, cell in _code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            for mime in sorted({WIDGET_VIEW, "image/svg+xml"} & set(data)):
                found.append(f"cell {number} stores {mime}")
            if " at 0x" in data.get("text/plain", ""):
                found.append(f"cell {number} shows a memory address: {data['text/plain'][:80]}")
    return found


def ending_problems(notebook: NotebookNode) -> list[str]:
    """No cell hides its value by `;` (nbval shows it all the same) or ends in a plotting call."""
    found = []
    for number, cell in _code_cells(notebook):
        code = cell.source.strip()
        if code.endswith(";"):
            found.append(f"cell {number} ends with a semicolon; assign the value to _ instead")
        try:
            body = ast.parse(code).body
        except SyntaxError as error:
            found.append(f"cell {number} is not plain Python: {error.msg}")
            continue
        if body and isinstance(body[-1], ast.Expr) and isinstance(body[-1].value, ast.Call):
            called = ast.unparse(body[-1].value.func)
            if re.match(r"(plt|pyplot)\.(?!show$)|.*\.(plot|bar|barh|scatter|step)$", called):
                found.append(f"cell {number} ends with a bare {called}(...); use utils.plots.show")
    return found


def text_of(notebook: NotebookNode) -> str:
    """All that can be read in a notebook, cells and outputs, without pictures."""
    parts = [cell.source for cell in notebook.cells]
    for _, cell in _code_cells(notebook):
        for output in cell.outputs:
            parts += [output.get("text", ""), output.get("evalue", "")]
            parts += output.get("traceback", [])
            parts += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join(parts)


def place_problems(text: str, root: Path) -> list[str]:
    """No path of the machine that built the course, and no package registry."""
    own = {str(root), str(Path.home()), tempfile.gettempdir()}
    own = {path for path in own if len(Path(path).parts) > 1}
    found = []
    for line in text.split("\n"):
        general = _SYSTEM_PATH.search(line) or _WINDOWS_PATH.search(line)
        if general or any(re.search(re.escape(path) + r"(?![\w-])", line) for path in own):
            found.append(f"a path of this machine: {line.strip()[:100]}")
        if _REGISTRY.search(line):
            found.append(f"a package registry: {line.strip()[:100]}")
    return found


def leak_problems(lab: NotebookNode, source_text: str) -> list[str]:
    """No line of a solution in the lab, also none of a cell tagged `solution`.

    Reads the source line by line, on purpose without the build's own parser. Lines that also
    stand outside of solutions do not count.
    """
    hidden: set[str] = set()
    public: set[str] = set()
    in_region = in_cell = False
    for line in source_text.split("\n"):
        words = line.strip()
        if words.startswith("# %%"):
            in_cell = "tags=" in words and '"solution"' in words
        elif words in (BEGIN, END):
            in_region = words == BEGIN
        else:
            (hidden if in_region or in_cell else public).add(words.removeprefix("# "))
    secrets = {line for line in hidden - public if len(line) >= MIN_LEAK_CHARACTERS}
    shown = {line.strip().removeprefix("# ") for line in text_of(lab).split("\n")}
    return [f"the lab shows a line of the solution: {line}" for line in sorted(secrets & shown)]


def stub_problems(lab: NotebookNode) -> list[str]:
    """Every `## Exercise` has a stub to fill in."""
    found = []
    for heading, cells in sections(lab, "## Exercise"):
        if not any(STUB in cell.source for cell in cells if cell.cell_type == "code"):
            found.append(f"`{heading}` has no stub ({STUB})")
    return found


def sections(notebook: NotebookNode, prefix: str) -> list[tuple[str, list[NotebookNode]]]:
    """Heading and cells of each section whose second-level heading starts with `prefix`.

    A section ends at the next first- or second-level heading that starts a cell.
    """
    found: list[tuple[str, list[NotebookNode]]] = []
    inside = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.match(r"##?\s", cell.source):
            first_line = cell.source.split("\n")[0]
            inside = first_line.startswith(prefix)
            if inside:
                found.append((first_line, []))
        if inside:
            found[-1][1].append(cell)
    return found
