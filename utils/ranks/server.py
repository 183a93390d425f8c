"""Processes of multiprocessing that ranks come from, started so that a notebook can bear them.

How it works: multiprocessing has helper processes: the server of ranks, and a resource tracker. The
server is told where to find `utils` (it does not know this process's sys.path) and imports
`utils.ranks.preload`. Both get a process group of their own: a kernel that ends kills its group
and waits for all processes in it, and the tracker, which takes no signal, would hold it up. A rank
does not run the script again that called, as multiprocessing would have it. The server's socket is
a file whose path has at most 107 bytes: it gets a short one where TMPDIR has a long name.

Left out: helper processes that other code has started before.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, spawn, util
from pathlib import Path
from typing import Any

from utils.ranks.scratch import temporary_folder

MAX_FOLDER_BYTES = 70  # macOS: 103 for a socket's path, less "/pymp-12345678/listener-12345678"
_ROOT = str(Path(__file__).resolve().parents[2])
_OWN_GROUP = (
    "import os, signal; os.setpgid(0, 0); signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]); "
)
_one_at_a_time = threading.Lock()


def context_for(start_method: str) -> Any:
    """multiprocessing's context for a start method."""
    context = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        context.set_forkserver_preload(["utils.ranks.preload"])
    return context


def start_helpers(start_method: str) -> None:
    """Start the helper processes unless they run; the server imports torch in the background."""
    with _one_at_a_time, _course_importable(), _own_groups():
        if start_method == "forkserver":
            _make_folder_for_sockets()
            forkserver.ensure_running()
        else:
            resource_tracker.ensure_running()


def server_has_ended() -> bool:
    """Whether the server of ranks was started and runs no more; it is left to multiprocessing."""
    pid = forkserver._forkserver._forkserver_pid
    if pid is None or not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _make_folder_for_sockets() -> None:
    """multiprocessing makes it once, at the first call, and removes it when this process ends."""
    usual, before = temporary_folder(), tempfile.tempdir
    if len(os.fsencode(usual)) > MAX_FOLDER_BYTES:
        short = [each for each in ("/tmp", "/var/tmp") if os.access(each, os.W_OK | os.X_OK)]
        tempfile.tempdir = short[0] if short else usual
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """While a rank is started: it is not told which script or module runs in this process."""
    plain = spawn.get_preparation_data

    def preparation_data(name: str) -> dict[str, Any]:
        data = plain(name)
        return {key: value for key, value in data.items() if not key.startswith("init_main")}

    with _one_at_a_time, _own_groups():
        spawn.get_preparation_data = preparation_data
        try:
            yield
        finally:
            spawn.get_preparation_data = plain


@contextlib.contextmanager
def _course_importable() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """While it lasts, this thread's share of a signal waits; a process started meanwhile so too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _own_groups() -> Iterator[None]:
    plain = util.spawnv_passfds
    # Ranks take this process's folder for temporary files: finding one needs room on a disk.
    folder = f"import tempfile; tempfile.tempdir = {temporary_folder()!r}; "

    def spawnv_passfds(path: Any, arguments: Sequence[Any], descriptors: Any) -> int:
        words = [os.fsdecode(word) for word in arguments]
        if "-c" in words:
            code = words.index("-c") + 1
            words[code] = f"{_OWN_GROUP}{folder}{words[code]}"
        with _held_back(signal.SIGINT):  # until it has a group of its own
            return plain(path, [os.fsencode(word) for word in words], descriptors)

    util.spawnv_passfds = spawnv_passfds
    try:
        yield
    finally:
        util.spawnv_passfds = plain
