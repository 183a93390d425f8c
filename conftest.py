"""Settings for every test run: notebooks' kernels find `utils` and leave nothing behind.

A kernel that nbval starts inherits this process's environment, so the environment is set here,
with the settings that the build uses, and each notebook gets an empty folder for its progress:
what one notebook passed must not show in the next one's outputs.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from utils.build.plan import kernel_settings  # noqa: E402

_SCRATCH = Path(tempfile.mkdtemp(prefix="course-tests-"))
_INHERITED_PATH = os.environ.get("PYTHONPATH", "")
_files_seen: list[Path] = []


def _use_fresh_folder() -> None:
    folder = _SCRATCH / str(len(_files_seen))
    folder.mkdir()
    os.environ.update(kernel_settings(ROOT, folder, _INHERITED_PATH))


_use_fresh_folder()
os.environ.pop("MPLBACKEND", None)  # it would hide inline figures


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Before the first test or cell of a file (its kernel is not yet started): a fresh folder."""
    if not _files_seen or _files_seen[-1] != item.path:
        _files_seen.append(item.path)
        _use_fresh_folder()


def pytest_unconfigure() -> None:
    """Remove what kernels and tests have left."""
    shutil.rmtree(_SCRATCH, ignore_errors=True)
