"""JupyterLab in a browser as a learner uses it: open, Run All, move a slider, read.

How it works: opening and running go through JupyterLab's own command API, which is exact about when
work is finished; controls are moved with the keyboard; what is asserted is read from the page, or
from the notebook model for outputs. Every page error and console error is collected in `errors`;
JupyterLab itself makes none, so there is no list of harmless ones.
"""

from __future__ import annotations

from typing import Any

RUN_S = 300

_OPENED = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
}"""
_START_ALL = """() => {
    window.courseRun = "running";
    window.jupyterapp.commands.execute("notebook:run-all-cells").then(
        () => { window.courseRun = "finished"; },
        (error) => { window.courseRun = "failed: " + error; });
}"""
_CODE_CELLS = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
    .filter((cell) => cell.cell_type === "code")"""


class LabPage:
    """One browser page on one JupyterLab server; `page` is playwright's page."""

    def __init__(self, page: Any, url: str, token: str) -> None:
        self.page, self._url, self._token = page, url, token
        self.errors: list[str] = []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        page.on("console", self._on_console)

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            where = message.location.get("url", "")
            self.errors.append(f"console error: {message.text} ({where})")

    def open_notebook(self, path: str) -> None:
        """Open a notebook of the served folder and wait until its kernel answers."""
        self.page.goto(f"{self._url}/lab/tree/{path}?token={self._token}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.evaluate(_OPENED)

    def start_all(self) -> None:
        """Start Run All Cells without waiting."""
        self.page.evaluate(_START_ALL)

    def wait_for_end(self) -> None:
        """Wait until Run All is over; an AssertionError says how it ended otherwise."""
        self.page.wait_for_function("window.courseRun !== 'running'", timeout=RUN_S * 1000)
        outcome = self.page.evaluate("window.courseRun")
        assert outcome == "finished", f"Run All {outcome}"

    def run_all(self) -> None:
        """Run all cells and wait for the end; an error output or a cell not run is a failure."""
        self.start_all()
        self.wait_for_end()
        for index, cell in enumerate(self.code_cells()):
            where = f"code cell {index}: {''.join(cell['source'])[:200]}"
            errors = [out for out in cell["outputs"] if out["output_type"] == "error"]
            assert not errors, f"{errors[0]['ename']}: {errors[0]['evalue']} in {where}"
            assert cell["execution_count"] is not None, f"not run: {where}"

    def code_cells(self) -> list[dict[str, Any]]:
        """The notebook's code cells with their outputs, as JupyterLab would save them."""
        return self.page.evaluate(_CODE_CELLS)

    def set_theme(self, name: str) -> None:
        """Switch the whole JupyterLab, e.g. to "JupyterLab Dark"."""
        change = (
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
        )
        self.page.evaluate(change, name)
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")
