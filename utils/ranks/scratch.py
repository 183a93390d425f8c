"""Where ranks meet: two files that leave no trace, whatever ends the processes.

How it works: ranks find each other through a store in a file, not a port, so two notebooks never
collide. On Linux the files are memory without a name, which no full disk stops: they are reached
through the open descriptors of the notebook's process and vanish with it. Elsewhere they have names
in a temporary folder, which the notebook's process removes, or the ranks when that process is gone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

HAS_NAMELESS_FILES = hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()


class Scratch:
    """`with Scratch() as scratch:` gives `scratch.store` and `scratch.pages`, paths for ranks.

    `folder` is the temporary folder with both, "" where they have no name.
    """

    def __init__(self, nameless: bool = HAS_NAMELESS_FILES) -> None:
        self._nameless, self._stack = nameless, ExitStack()
        self.folder = self.store = self.pages = ""

    def __enter__(self) -> Scratch:
        if not self._nameless:
            self.folder = tempfile.mkdtemp(prefix="ranks-")
            self._stack.callback(remove, self.folder)
        self.store, self.pages = self._path("store"), self._path("pages")
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _path(self, name: str) -> str:
        if self._nameless:
            descriptor = os.memfd_create(name)
            self._stack.callback(os.close, descriptor)
            return f"/proc/{os.getpid()}/fd/{descriptor}"
        path = Path(self.folder, name)
        path.touch()
        return str(path)


def temporary_folder() -> str:
    """Where temporary files go. Raises RuntimeError, one sentence, where none can be written."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        raise RuntimeError(
            "Ranks need a folder for temporary files, and none can be written: free some disk "
            "space, or name a folder by the environment variable TMPDIR, then restart the kernel."
        ) from None


def remove(folder: str) -> None:
    """Remove a folder of named files; "" is none."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
