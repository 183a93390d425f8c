"""JupyterLab in a browser as a learner uses it: open, Run All, move a slider, read.

How it works: opening and running go through JupyterLab's own command API, which is exact about when
work is finished; controls are moved with the keyboard; what is asserted is read from the page, or
from the notebook model for outputs. `errors` collects every page error and console error, every
request that fails or goes elsewhere than to the server, and what the kernel writes to stderr. What
JupyterLab and its kernel make of these themselves is listed in `_HARMLESS`.
"""

from __future__ import annotations

import re
from typing import Any

RUN_S = 1500  # only a run that hangs needs so long, also on a machine that has much else to do

# The page asks every new kernel for the widgets it has, before a cell has imported ipywidgets: the
# kernel says that it knows no such thing, and the page goes on. And it asks a restarted kernel
# whether it can debug: the debugger then warns of Python's frozen modules. Only JupyterLab's log
# console shows these lines.
_HARMLESS = re.compile(
    r"stderr: (?:No such comm(?: target registered: jupyter\.widget\.control|: [0-9a-f-]{36})"
    r"|\d\.\d\ds - (?:Debugger warning|make the debugger|to python to|Note: Debugging).*)"
)
_OPENED = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
    window.kernelTrouble = [];
    panel.sessionContext.iopubMessage.connect((_, {header, content}) => {
        if (header.msg_type === "error") window.kernelTrouble.push("error: " + content.ename);
        if (content.name !== "stderr") return;
        const lines = content.text.split("\\n").filter((line) => line.trim());
        window.kernelTrouble.push(...lines.map((line) => "stderr: " + line));
    });
}"""
_START_ALL = """() => {
    window.courseRun = "running";
    window.jupyterapp.commands.execute("notebook:run-all-cells").then(
        () => { window.courseRun = "finished"; },
        (error) => { window.courseRun = "failed: " + error; });
}"""
_CODE_CELLS = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
    .filter((cell) => cell.cell_type === "code")"""
# What a learner would see as broken, although every cell has run.
_BROKEN = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.node;
    const all = (selector) => [...notebook.querySelectorAll(selector)];
    const broken = /Loading widget|Error displaying widget|Error creating widget/;
    return [
        ...all(".jp-OutputArea-output").map((each) => each.textContent)
            .filter((text) => broken.test(text)),
        ...all("mjx-merror").map((each) => "formula: " + each.textContent),
        ...all("img").filter((each) => !each.complete || each.naturalWidth === 0)
            .map((each) => "picture: " + (each.alt || each.src.slice(0, 80))),
    ];
}"""
_CHANGE_THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"


class LabPage:
    """One browser page on one JupyterLab server; `page` is playwright's page."""

    def __init__(self, page: Any, url: str, token: str) -> None:
        self.page, self._url, self._token = page, url, token
        self.errors: list[str] = []
        page.set_default_timeout(180_000)
        page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        page.on("console", self._on_console)
        page.on("request", lambda request: self._on_address(request.url))
        page.on("websocket", lambda socket: self._on_address(socket.url))
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            where = message.location.get("url", "")
            self.errors.append(f"console error: {message.text} ({where})")

    def _on_address(self, address: str) -> None:
        server = self._url.removeprefix("http:")
        here = (f"http:{server}/", f"ws:{server}/", "data:", f"blob:http:{server}/")
        if not address.startswith(here):
            self.errors.append(f"asked another server: {address[:200]}")

    def open_notebook(self, path: str) -> None:
        """Open a notebook of the served folder and wait until its kernel answers."""
        self.page.goto(f"{self._url}/lab/tree/{path}?token={self._token}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.evaluate(_OPENED)

    def choose(self, menu: str, entry: str) -> None:
        """Choose an entry of JupyterLab's menu bar with the mouse."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
        label = re.compile(f"^{re.escape(entry)}$")
        self.page.locator(".lm-Menu-itemLabel", has_text=label).click()

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

    def assert_nothing_is_broken(self) -> None:
        """Every widget, formula and picture is there, and nothing went wrong behind the page."""
        broken = self._still_broken()
        assert not broken, broken
        self.errors += self.kernel_trouble()
        assert not self.errors, self.errors

    def kernel_trouble(self) -> list[str]:
        """What the kernel wrote to stderr, and the errors it told, since this was asked last."""
        trouble = self.page.evaluate("window.kernelTrouble.splice(0)")
        return [each for each in trouble if not _HARMLESS.fullmatch(each.rstrip())]

    def _still_broken(self, within_s: int = 60) -> list[str]:
        """What stays broken: the views of widgets come a moment after their cell has ended."""
        for _ in range(within_s):
            broken = self.page.evaluate(_BROKEN)
            if not broken:
                break
            self.page.wait_for_timeout(1000)
        return broken

    def set_theme(self, name: str) -> None:
        """Switch the whole JupyterLab, e.g. to "JupyterLab Dark"."""
        self.page.evaluate(_CHANGE_THEME, name)
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")
