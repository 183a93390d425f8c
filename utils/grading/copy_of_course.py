"""A private copy of the checks and labs, which wardens load, and its fingerprint.

How it works: `utils/` and `labs/` are read once and written to a temporary folder. Whatever happens
to the course's own folder while a grading runs, wardens keep the version that it began with; a copy
that was changed is noticed and written anew. The fingerprint is that of checks, labs and grading.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

_FOLDERS = ("utils", "labs")
_DECIDING = ("labs/", "utils/checks/", "utils/grading/")
_BY_THE_WAY = {"__pycache__", ".ipynb_checkpoints"}


class CourseCopy:
    """`path` holds utils/ and labs/ as they were; `fingerprint` names this version."""

    def __init__(self, root: Path, place: Path) -> None:
        self._files = _contents(root)
        self.fingerprint = _fingerprint(self._files)  # rows of another version are graded again
        self.path = place / "course"
        self._write()

    def is_intact(self) -> bool:
        """Whether every file is as it was written."""
        try:
            return _contents(self.path) == self._files
        except OSError:
            return False

    def mend(self) -> None:
        """Write it all again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._write()

    def _write(self) -> None:
        for name, content in self._files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _contents(root: Path) -> dict[str, bytes]:
    paths = sorted(path for folder in _FOLDERS for path in (root / folder).rglob("*"))
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in paths
        if path.is_file() and not _BY_THE_WAY.intersection(path.parts)
    }


def _fingerprint(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        if not name.startswith(_DECIDING):
            continue
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]
