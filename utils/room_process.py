"""Processes that are watched while they run, and ended with all that they have started.

How it works: `started` is a context: on leaving it, for whatever reason, the process is asked to
end, and then it and everything below it are killed. `jupyterlab` is a server on a free port, whose
settings lie in a folder of its own, asked for its page and for a notebook.

Left out: systems without /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOOK_EVERY_S, START_S, GRACE_S, ANSWER_S = 0.2, 180.0, 20.0, 120.0


class RoomError(Exception):
    """One sentence: what went wrong, and what to do."""


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen]:
    """A process that is ended with all that it has started, whatever happens."""
    from utils.grading.tree import descendants  # here: it imports what only Unix has

    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=said,
            stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        family = descendants(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        for each in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        process.kill()
        process.wait()


@contextlib.contextmanager
def jupyterlab(folder: Path, notebook: Path) -> Iterator[subprocess.Popen]:
    """JupyterLab's server, when it has given out its page and a notebook of the course."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0",
               "--allow-root", f"--ServerApp.root_dir={notebook.parent}"]  # fmt: skip
    private = {f"JUPYTER_{each}_DIR": str(folder / each) for each in ("CONFIG", "DATA", "RUNTIME")}
    with started(command, folder / "server.log", {**os.environ, **private}) as server:
        about = _wait_until_it_runs(server, folder / "RUNTIME")
        for page in ("lab", f"api/contents/{notebook.name}"):
            _read(about, page)
        yield server


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _read(about: dict[str, str], page: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    address = f"{about['url']}{page}?token={about['token']}"
    with opener.open(address, timeout=ANSWER_S) as answer:
        answer.read()


def _wait_until_it_runs(server: subprocess.Popen, runtime: Path) -> dict[str, str]:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and server.poll() is None:
        # The file is there, or half of it, before the server answers.
        with contextlib.suppress(OSError, ValueError):
            for path in runtime.glob("jpserver-*.json"):
                about = json.loads(path.read_text(encoding="utf-8"))
                _read(about, "api/status")
                return about
        time.sleep(LOOK_EVERY_S)
    raise RoomError(
        f"JupyterLab did not start ({last_line(runtime.parent / 'server.log')}): try `make lab`."
    )
