"""The requirement files, the lock and pytest's settings: what a fresh machine relies on."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from utils.check_env import requirement_findings

ROOT = Path(__file__).resolve().parent.parent


def requirements_in(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


DIRECT = requirements_in("requirements.txt") + requirements_in("requirements-browser.txt")
SLIDES = requirements_in("requirements-slides.txt")  # installed without their dependencies
CODE = ("utils", "tests", "sources")


def test_every_direct_requirement_is_bounded_on_both_sides():
    for requirement in DIRECT + SLIDES:
        operators = {part.operator for part in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), requirement
    assert "torch==2.13.0" in map(str, DIRECT)


def test_every_direct_requirement_has_its_reason():
    rows = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    for requirement in DIRECT + SLIDES:
        reasons = [row for row in rows if row.startswith(f"| {requirement.name} |")]
        assert len(reasons) == 1 and len(reasons[0].split("|")[2]) > 20, requirement.name


def test_a_package_for_another_system_is_not_missed_here(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text('pytest>=8\nonly-there>=1,<2 ; sys_platform == "other"\n')
    assert [each.name for each in requirement_findings(path)] == ["pytest"]


def imported_packages(path):
    """Top-level names of the absolute imports in one file that are not the library's or ours."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    tops = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    folders = (ROOT, path.parent)
    return {top for top in tops if not any(list(folder.glob(f"{top}*")) for folder in folders)}


def test_every_package_that_the_code_imports_is_a_direct_requirement():
    direct = {canonicalize_name(requirement.name) for requirement in DIRECT + SLIDES}
    distributions = packages_distributions()
    files = [ROOT / "conftest.py", *(f for d in CODE for f in sorted((ROOT / d).rglob("*.py")))]
    undeclared = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported_packages(path)
        if not direct & set(map(canonicalize_name, distributions.get(name, [name])))
    }
    assert len(files) > 10 and not undeclared


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_the_lock_holds_one_version_of_each_direct_requirement(python, system):
    here = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": system}
    locked = {}
    for line in requirements_in("requirements-lock.txt"):
        if line.marker is None or line.marker.evaluate(here):
            assert line.name not in locked, f"two versions of {line.name}"
            locked[line.name] = Version(str(line.specifier).removeprefix("=="))
    for direct in DIRECT:
        if direct.marker is None or direct.marker.evaluate(here):
            assert direct.specifier.contains(locked[direct.name]), direct
    assert str(locked["torch"]) == "2.13.0"


def test_the_decks_are_written_by_the_locked_nbconvert():
    bound = next(line for line in SLIDES if line.name == "nbconvert")
    locked = next(r for r in requirements_in("requirements-lock.txt") if r.name == "nbconvert")
    assert bound.specifier.contains(str(locked.specifier).removeprefix("=="))


def test_the_lock_binds_no_cuda_package_machine_or_registry():
    text = (ROOT / "requirements-lock.txt").read_text()
    names = [line.name for line in requirements_in("requirements-lock.txt")]
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]
    assert not any(word in text for word in ("://", " @ ", "+cpu", "--"))


def test_a_bare_nbval_is_strict(pytestconfig):
    options = pytestconfig.getini("addopts")
    assert "--nbval-lax" not in options
    assert {"--nbval-current-env", "--nbval-cell-timeout=120"} <= set(options)
    assert pytestconfig.getini("testpaths") == ["tests", "notebooks", "labs", "solutions"]
