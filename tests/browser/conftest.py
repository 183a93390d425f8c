"""A JupyterLab server on a temporary copy of the course, and a headless Chromium page on it.

How it works: the session copies the notebooks and `utils/` to a temporary folder, starts JupyterLab
there on a free port with settings of its own (no news pop-up, all cells in the page) and starts one
Chromium. `lab_page` gives each test a fresh page. At the end every process is ended by its number,
the server's kernels too, and the folder is removed. The repository is never written.

The tests are skipped only where Chromium or playwright is missing.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from lab_page import LabPage

from utils.build.plan import FOLDERS

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
SERVER_START_S = 300
LAB_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # All cells are in the page, also those that are scrolled out of sight.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@dataclass(frozen=True)
class LabServer:
    """A running JupyterLab: its address, its secret, the folder it serves and its process."""

    url: str
    token: str
    folder: Path
    pid: int


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs Chromium and playwright")


@pytest.fixture(scope="session")
def lab_server() -> Iterator[LabServer]:
    """JupyterLab on a temporary copy of notebooks and utils/, ended after the last test."""
    with tempfile.TemporaryDirectory(prefix="course-lab-", ignore_cleanup_errors=True) as name:
        home = Path(name).resolve()
        folder = home / "course"
        for part in (*FOLDERS, "utils"):
            ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        (folder / "notebooks").mkdir(exist_ok=True)
        server, process = _start_server(folder, home)
        try:
            yield server
        finally:
            _end_with_children(process)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One headless Chromium for all tests."""
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.skip(f"browser tests need Chromium; none of {CHROMIUM_NAMES} is on the PATH")
    playwright_api = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need playwright, which is not installed"
    )
    # Containers run as root, where Chromium's sandbox does not start.
    arguments = ["--disable-gpu", *(["--no-sandbox"] if _is_root() else [])]
    with tempfile.TemporaryDirectory(prefix="course-browser-") as home:
        environment = {**_without_proxies(), "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        with playwright_api.sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=path, args=arguments, env=environment
            )
            yield chromium
            chromium.close()


@pytest.fixture
def lab_page(browser: Any, lab_server: LabServer) -> Iterator[LabPage]:
    """A fresh page; its kernels are ended after the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    lab = LabPage(context.new_page(), lab_server.url, lab_server.token)
    try:
        yield lab
    finally:
        context.close()
        _end_kernels(lab_server)


def _start_server(folder: Path, home: Path) -> tuple[LabServer, subprocess.Popen[bytes]]:
    token, log = secrets.token_hex(16), home / "server.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    command += [f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    command += ["--allow-root"] if _is_root() else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=_server_environment(home), stdout=output, stderr=output
        )
    server = LabServer(f"http://127.0.0.1:{port}", token, folder, process.pid)
    try:
        _wait_until_it_answers(server, process, log)
    except BaseException:
        _end_with_children(process)
        raise
    return server, process


def _server_environment(home: Path) -> dict[str, str]:
    """The tests' environment without proxies, and every Jupyter folder inside `home`."""
    environment = _without_proxies()
    for kind in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        environment[f"JUPYTER_{kind}"] = str(home / kind.lower())
    settings = home / "lab_settings"
    for name, values in LAB_SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(home / "lab_workspaces")
    environment["IPYTHONDIR"] = str(home / "ipython")
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return environment


def _without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "_proxy" not in name.lower()}


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _wait_until_it_answers(server: LabServer, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + SERVER_START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            _api(server, "GET", "status")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    text = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"JupyterLab did not start within {SERVER_START_S} s; its log ends:\n{text}")


def _api(server: LabServer, method: str, path: str) -> Any:
    address = f"{server.url}/api/{path}"
    headers = {"Authorization": f"token {server.token}"}
    request = urllib.request.Request(address, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        body = answer.read()
    return json.loads(body) if body else None


def _end_kernels(server: LabServer) -> None:
    for session in _api(server, "GET", "sessions"):
        _api(server, "DELETE", f"sessions/{session['id']}")


def _end_with_children(process: subprocess.Popen[bytes]) -> None:
    """End the server and its kernels, which are in process groups of their own, by number."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
    except psutil.NoSuchProcess:
        family = [process]
    process.terminate()  # lets the server end its kernels itself
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    left = [child for child in family if child is not process and child.is_running()]
    for child in left:
        child.kill()
    psutil.wait_procs(left, timeout=10)
