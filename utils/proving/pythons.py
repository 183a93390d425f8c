"""One Python: find it, give it an environment and a copy of the course, check, test.

How it works: the environment takes the locked versions. For another torch the requirement files are
changed beside the copy, never in it, so that check-env still complains about torch, and about
nothing else. Each command runs under the keeper (keeper.py): when this process is interrupted or
killed, nothing of it is left. What the commands say goes into files beside the environment.

Left out: installing a Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.proving.results import Results, read_results

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS", "VIRTUAL_ENV")
MADE_HERE = {".git", ".venv", "my-labs", "slides", "grades", "runs", "RUN", ".progress.json"}
WHO = "import sys; print('%d.%d' % sys.version_info[:2])"
FAREWELL_S = 30.0


class CannotTry(Exception):
    """One sentence: why this Python cannot be tried."""


@dataclass
class Row:
    """What came of one Python; `problem` is a sentence when it could not be tried."""

    python: str
    torch: str = ""
    is_installed: bool = False
    check_env: str = ""  # "ok", "failed", or "other torch" if its only complaint was asked for
    results: Results = field(default_factory=Results)
    seconds: float = 0.0
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Tried, and nothing failed."""
        broken = self.problem or self.check_env == "failed" or self.results.failing
        return not broken and self.results.passed.total() > 0

    def cells(self) -> tuple[object, ...]:
        """For the table."""
        return (
            self.python, self.torch, "yes" if self.is_installed else "no", self.check_env,
            self.results.passed.total(), len(self.results.failing), f"{self.seconds:.0f}",
        )  # fmt: skip


def try_python(row: Row, torch: str, folder: Path, words: Sequence[str]) -> None:
    """Install, check, test, filling the row; `words` go to pytest."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.txt"), *folder.glob("*.xml")]:
        old.unlink()
    python = _install(row, torch, folder)
    row.is_installed = True
    course = copy_course(folder / "course")
    checked, tested = folder / "check-env.txt", folder / "pytest.txt"
    status = run_kept([python, "-m", "utils.check_env"], course, checked)
    _read_check(row, status, torch, checked.read_text(encoding="utf-8", errors="replace"))
    answers = folder / "results.xml"
    pytest = [python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={answers}"]
    status = run_kept([*pytest, "-o", "junit_family=xunit1", *words], course, tested)
    results = read_results(answers)
    if results is None:
        raise CannotTry(f"pytest ended with status {status} and no results: {_last_words(tested)}")
    row.results = results


def find_python(version: str) -> str:
    """A Python of this version that runs: this one, `python3.X` on PATH, or one of pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    of_pyenv = sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)
    for each in (sys.executable, shutil.which(f"python{version}"), *of_pyenv):
        if each and _version_of(str(each)) == version:
            return str(each)
    raise CannotTry(
        f"there is no Python {version}, neither as python{version} on PATH nor in pyenv: "
        f"install it, for example with `pyenv install {version}`."
    )


def _version_of(python: str) -> str:
    try:
        said = subprocess.run([python, "-c", WHO], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # also pyenv's shim of a version that is not chosen ends here, or by its status
    return "" if said.returncode else said.stdout.strip()


def _install(row: Row, torch: str, folder: Path) -> str:
    """Make the environment, or go on with the one that stands there; its Python."""
    log = folder / "install.txt"
    scripts = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    python = str(folder / "venv" / scripts)
    if _version_of(python) != row.python:
        make = [find_python(row.python), "-m", "venv", "--clear", str(folder / "venv")]
        if run_kept(make, folder, log):
            raise CannotTry(f"no environment could be made: {_last_words(log)}")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    if run_kept([*pip, *_requirements(folder, torch)], folder, log):
        said = log.read_text(encoding="utf-8", errors="replace")
        if "No matching distribution found for torch" in said:
            wanted = f"torch {torch}" if torch else "the locked torch"
            raise CannotTry(
                f"{wanted} has no build for Python {row.python} that pip can find here "
                "(without a network pip says the same)"
            )
        raise CannotTry(f"the packages could not be installed: {_last_words(log)}")
    return python


def _requirements(folder: Path, torch: str) -> list[str]:
    """pip's words for the course's packages, with this torch instead of the pinned one."""
    for name in ("requirements.txt", "requirements-lock.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        wanted = re.sub(r"(?m)^torch==\S+", f"torch=={torch}", text) if torch else text
        (folder / name).write_text(wanted, encoding="utf-8")
    return ["-r", str(folder / "requirements.txt"), "-c", str(folder / "requirements-lock.txt")]


def copy_course(target: Path, source: Path = ROOT) -> Path:
    """A fresh copy of what git keeps or would keep; without git, of all that is not made here."""
    shutil.rmtree(target, ignore_errors=True)
    if shutil.which("git") is None or not (source / ".git").exists():
        return shutil.copytree(
            source, target, ignore=lambda folder, _: MADE_HERE if Path(folder) == source else ()
        )
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    return target


def _read_check(row: Row, status: int, torch: str, said: str) -> None:
    found = re.search(r"\] torch: (\S+)", said)
    row.torch = found[1] if found else "?"
    failed = [line for line in said.splitlines() if line.startswith("[FAIL]")]
    if torch and failed and all(line.startswith("[FAIL] torch: ") for line in failed):
        row.check_env = "other torch"
    else:
        row.check_env = "failed" if status else "ok"


def run_kept(command: Sequence[str], folder: Path, log: Path) -> int:
    """The command's exit status; what it says is added to the log."""
    asked = {"cores": None, "load": [], "command": command, "folder": str(folder)}
    environment = {name: text for name, text in os.environ.items() if name not in NOT_OURS}
    with log.open("ab") as said:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "utils.proving.keeper", json.dumps(asked)], cwd=ROOT,
            env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        try:
            return keeper.wait()
        finally:
            if keeper.stdin:
                keeper.stdin.close()  # it ends what it started
            keeper.wait(FAREWELL_S)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()] or ["it said nothing"]
    errors = [line for line in said if line.startswith(("ERROR", "OSError"))]
    return (errors or said)[-1][:200]
