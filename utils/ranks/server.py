"""Processes of multiprocessing that ranks come from, started so that a notebook can bear them.

How it works: multiprocessing has helper processes: the server of ranks, and a resource tracker. The
server is told where to find `utils` (it does not know this process's sys.path) and imports
`utils.ranks.preload`. Both get a process group of their own: a kernel that ends kills its group
and waits for all processes in it, and the tracker, which takes no signal, would hold it up. A rank
does not run the script again that called, as multiprocessing would have it.

Left out: helper processes that other code has started before.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, spawn, util
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).resolve().parents[2])
_OWN_GROUP = "import os; os.setpgid(0, 0); "
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
            forkserver.ensure_running()
        else:
            resource_tracker.ensure_running()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """While a rank is started: it is not told which script or module runs in this process."""
    plain = spawn.get_preparation_data

    def preparation_data(name: str) -> dict[str, Any]:
        data = plain(name)
        return {key: value for key, value in data.items() if not key.startswith("init_main")}

    with _one_at_a_time:
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
def _own_groups() -> Iterator[None]:
    plain = util.spawnv_passfds

    def spawnv_passfds(path: Any, arguments: Sequence[Any], descriptors: Any) -> int:
        words = [os.fsdecode(word) for word in arguments]
        if "-c" in words:
            code = words.index("-c") + 1
            words[code] = _OWN_GROUP + words[code]
        return plain(path, [os.fsencode(word) for word in words], descriptors)

    util.spawnv_passfds = spawnv_passfds
    try:
        yield
    finally:
        util.spawnv_passfds = plain
