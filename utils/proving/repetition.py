"""One repetition: a strict `pytest --nbval` in a fresh process, under the plan's conditions.

How it works: a keeper (keeper.py) in a session of its own runs pytest; it holds the reading end of
a pipe, so closing ours, or our death, ends all of it. The output goes straight into the log
folder, and stays there only if something failed.

Left out: PYTEST_ADDOPTS of the user's, which could make the comparison lax.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from utils.proving.plan import Plan, num_code_cells
from utils.proving.records import Record
from utils.proving.results import Results, complaints, read_results

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S_PER_NOTEBOOK = 1200.0  # many times what one takes: only a pytest that hangs gets there
FAREWELL_S = 60.0  # longer than the keeper takes
ALL_PASSED, SOME_FAILED = 0, 1  # pytest's statuses


def repeat_once(
    plan: Plan, order: list[str], number: int, log: Path, run: str, code_version: str
) -> Record:
    """Run the notebooks in this order; `log` is the folder, `run` names the invocation.

    Raises UsageError for a damaged notebook. After Ctrl-C the output so far stays in the folder.
    """
    num_cells = {path: num_code_cells(plan.folder / path) for path in order}
    said, answers = log / f"{run}-{number:02}.txt", log / f"{run}-{number:02}.xml"
    begun, start_s = datetime.now().isoformat(timespec="seconds"), time.monotonic()
    try:
        status = _run(plan, _command(plan.folder, order, answers), said)
        seconds, results = time.monotonic() - start_s, read_results(answers)
    finally:
        answers.unlink(missing_ok=True)
    failing = _failing(results, status, said, order, num_cells)
    if not failing:
        said.unlink()
    conditions, results = plan.conditions, results or Results()
    return Record(
        run=run, number=number, folder=str(plan.folder), is_whole=plan.is_whole,
        num_cores=len(conditions.cores) or os.cpu_count() or 1, num_load=conditions.num_load,
        seed=conditions.seed, passed=results.passed.total(), failed=results.failed.total(),
        failing=failing, seconds=round(seconds, 1), order=order,
        notebook_s={path: round(each_s, 1) for path, each_s in results.seconds.items()},
        code_version=code_version, python=platform.python_version(), begun=begun,
        log=said.name if failing else "",
    )  # fmt: skip


def _failing(
    results: Results | None, status: int | None, said: Path, order: list[str],
    num_cells: dict[str, int],
) -> list[str]:  # fmt: skip
    """Cells by name, then what no cell says, at last a status that nothing else explains."""
    if results is None:
        return [f"pytest wrote no results: {_why(status, said)}"]
    found = [*results.failing, *complaints(results, order, num_cells)]
    if status not in (ALL_PASSED, SOME_FAILED) or (status and not found):
        found.append(f"pytest: {_why(status, said)}")
    return found


def _command(folder: Path, order: list[str], answers: Path) -> list[str]:
    pytest = [sys.executable, "-m", "pytest", "--nbval", "-vv", "-p", "no:cacheprovider"]
    answer = ["--color=no", f"--junitxml={answers}", "-o", "junit_family=xunit1"]
    return [*pytest, f"--rootdir={folder}", *answer, *order]


def _run(plan: Plan, command: list[str], said: Path) -> int | None:
    """The keeper's exit status; None when it had to be ended after the limit."""
    conditions = plan.conditions
    asked = {
        "cores": conditions.cores, "load": conditions.load_cores(), "command": command,
        "folder": str(plan.folder),
    }  # fmt: skip
    environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
    with said.open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "utils.proving.keeper", json.dumps(asked)],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return keeper.wait(LIMIT_S_PER_NOTEBOOK * len(plan.notebooks))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(keeper)


def _end(keeper: subprocess.Popen) -> None:
    """It ends all others when its pipe closes."""
    if keeper.stdin:
        keeper.stdin.close()
    try:
        keeper.wait(FAREWELL_S)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


def _why(status: int | None, said: Path) -> str:
    if status is None:
        return "it did not end by itself and was ended"
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"it ended with status {status} ({last[:200]})"
