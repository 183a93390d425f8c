"""Is this machine ready for the course? `python -m utils.check_env` says so, line by line.

How it works: each question is one function that returns a `Finding`, `findings()` yields them all,
`main()` prints them and answers 1 when something required failed. A missing GPU, compiler or
browser is an [INFO] line that says what it would add. torch is imported late, so that the check
also runs, and says what to do, where nothing is installed yet or Python is too old.
Left out: repairing anything; each [FAIL] names the command that does.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from utils import check_hardware as hardware
from utils.check_hardware import Finding, pip_install

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 10)
NEWEST_TRIED_PYTHON = (3, 13)
INSTALL_ALL = ("-r", "requirements.txt")


def python_finding(version: tuple[int, ...]) -> Finding:
    """Python is new enough; `version` is (major, minor, micro)."""
    found, oldest, newest = map(_dotted, (version, OLDEST_PYTHON, NEWEST_TRIED_PYTHON))
    if version[:2] < OLDEST_PYTHON:
        fix = f"make clean-venv venv PYTHON=python{newest}  (install Python {newest} first)"
        return Finding("FAIL", "Python", f"{found} is too old, {oldest} or newer is needed", fix)
    if version[:2] > NEWEST_TRIED_PYTHON:
        return Finding("OK", "Python", f"{found} (newer than {newest}, the last one tried)")
    return Finding("OK", "Python", found)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def requirement_findings(
    requirements_file: Path = ROOT / "requirements.txt",
    installed_version: Callable[[str], str] = metadata.version,
) -> list[Finding]:
    """One finding per line of requirements.txt that holds for this system: version and bounds."""
    if not requirements_file.is_file():
        fix = "git checkout -- requirements.txt"
        return [Finding("FAIL", "requirements", f"{requirements_file.name} is missing", fix)]
    try:
        parse = importlib.import_module("packaging.requirements").Requirement
    except ImportError:
        text = "not installed (it reads requirements.txt)"
        return [Finding("FAIL", "packaging", text, pip_install(*INSTALL_ALL))]
    lines = requirements_file.read_text(encoding="utf-8").splitlines()
    texts = [line.partition("#")[0].strip() for line in lines]
    wanted = [parse(text) for text in texts if text]
    here = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    return [requirement_finding(each, installed_version) for each in here]


def requirement_finding(wanted: Any, installed_version: Callable[[str], str]) -> Finding:
    """One `packaging` Requirement against what `installed_version(name)` answers."""
    try:
        found = installed_version(wanted.name)
    except metadata.PackageNotFoundError:
        text = f"not installed, {wanted.specifier} is needed"
        return Finding("FAIL", wanted.name, text, pip_install(*INSTALL_ALL))
    if not found:  # importlib.metadata's answer for a package that was half removed
        fix = pip_install("--ignore-installed", wanted.name)
        return Finding("FAIL", wanted.name, "installed, but its files are damaged", fix)
    if not wanted.specifier.contains(found, prereleases=True):
        text = f"{found} is installed, {wanted.specifier} is needed"
        return Finding("FAIL", wanted.name, text, pip_install(*INSTALL_ALL))
    return Finding("OK", wanted.name, found)


def import_torch() -> tuple[Any, str]:
    """The torch module and "", or None and why it cannot be imported, in one line."""
    try:
        return importlib.import_module("torch"), ""
    except Exception as error:  # a broken install raises OSError, RuntimeError, ...
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


def findings() -> list[Finding]:
    """Every answer about this machine, in the order in which `main` prints them."""
    return list(iterate_findings())


def iterate_findings() -> Iterator[Finding]:
    """The same one by one, since importing torch takes seconds; a Python too old ends it."""
    python = python_finding(tuple(sys.version_info[:3]))
    yield python
    if python.status == "FAIL":
        return
    yield from requirement_findings()
    yield hardware.cores_finding()
    yield hardware.memory_finding(hardware.memory_bytes())
    yield hardware.disk_finding(shutil.disk_usage(ROOT).free)
    yield hardware.folder_finding(os.access(ROOT, os.W_OK))
    yield hardware.temporary_finding()
    torch, problem = import_torch()
    yield hardware.bf16_finding(hardware.cpu_flags(torch))
    yield hardware.gpu_finding(torch)
    yield hardware.program_finding("C++ compiler", ("g++", "clang++"), "the torch.compile figures")
    yield hardware.program_finding("Chromium", hardware.CHROMIUM_NAMES, "the browser tests")
    yield hardware.matmul_finding(torch, problem)


def main(answers: Iterable[Finding] | None = None) -> int:
    """Print the findings; 0 when the course runs here, 1 when something required failed."""
    num_failed = 0
    for finding in iterate_findings() if answers is None else answers:
        print(finding, flush=True)
        num_failed += finding.status == "FAIL"
    if num_failed:
        print(f"{num_failed} of the lines above failed: run the fix below each, then check again.")
    else:
        print("This machine is ready for the course.")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
