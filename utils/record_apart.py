"""One experiment in a process of its own, with a limit in seconds: the part of `make record` that
can fail without taking the rest with it.

How it works: `run_apart` starts `python -m utils.record_apart NAME DEVICE FILE`, waits, and reads
the file that the process wrote. Whatever goes wrong (an exception, no memory, a crash, the limit)
becomes one sentence. At the limit, and at Ctrl-C, the process is asked to end, so that it can end
its ranks, and is killed with all its children if it does not.

Left out: rows of an experiment that did not finish.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from utils.experiments.registry import EXPERIMENTS, SCRATCH, NotHere, Rows

ROOT = Path(__file__).resolve().parents[1]
GRACE_S = 5.0
KILLED = -9  # by SIGKILL, which Windows does not know


@dataclass(frozen=True)
class Outcome:
    """Rows, or why there are none; `is_failure` unless the machine only lacks something."""

    seconds: float
    rows: Rows | None = None
    problem: str = ""
    is_failure: bool = False


def run_here(name: str, device: str, limit_s: float = 0.0) -> Outcome:
    """Run an experiment in this process, without a limit."""
    start_s = time.perf_counter()
    rows, problem, is_failure = None, "", False
    try:
        rows = EXPERIMENTS[name].load()(device)
        if not rows:
            problem, is_failure = "gave no rows", True
    except NotHere as reason:
        problem = str(reason)
    except Exception as error:
        problem, is_failure = sentence_of(error), True
    return Outcome(time.perf_counter() - start_s, rows or None, problem, is_failure)


def run_apart(name: str, device: str, limit_s: float) -> Outcome:
    """Run an experiment in a process of its own, which is ended after `limit_s` seconds."""
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="course-record-", ignore_cleanup_errors=True) as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log.txt")
        with log.open("wb") as said:
            child = subprocess.Popen(
                [sys.executable, "-m", "utils.record_apart", name, device, str(answer)],
                cwd=ROOT, env=_environment(device, folder), stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True,
            )  # fmt: skip
            try:
                child.wait(limit_s)
            except subprocess.TimeoutExpired:
                problem = f"was ended after {limit_s:.0f} s, its share of the time"
                return Outcome(time.perf_counter() - start_s, problem=problem, is_failure=True)
            finally:
                _end(child)
        return _read(answer, log, child.returncode, time.perf_counter() - start_s)


def sentence_of(error: BaseException) -> str:
    """What failed, on one line."""
    import torch  # here: whoever only reads an outcome does not need it

    words = " ".join(str(error).split())
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in words:
        return "ran out of memory"
    return f"failed ({type(error).__name__}: {words[:200]})"


def _environment(device: str, folder: str) -> dict[str, str]:
    """One thread, whatever libraries look; for the CPU no GPU is to be seen."""
    extra = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), SCRATCH: folder}
    if device == "cpu":
        extra["CUDA_VISIBLE_DEVICES"] = ""
    return {**os.environ, **extra}


def _read(answer: Path, log: Path, code: int, seconds: float) -> Outcome:
    try:
        return Outcome(**{**json.loads(answer.read_text(encoding="utf-8")), "seconds": seconds})
    except (OSError, ValueError, TypeError):
        pass
    if code == KILLED:
        problem = "was killed by the system, most likely for want of memory"
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        problem = f"ended with code {code} ({last[:200]})"
    return Outcome(seconds, problem=problem, is_failure=True)


def _end(child: subprocess.Popen) -> None:
    """Nothing of the experiment runs on: first asked, then killed, with its children."""
    if child.poll() is None:
        child.terminate() if os.name == "nt" else child.send_signal(signal.SIGINT)
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if hasattr(os, "killpg"):
        try:
            os.killpg(child.pid, signal.SIGKILL)  # its session: whoever is left in it
        except (ProcessLookupError, PermissionError):
            pass


def main(arguments: list[str]) -> int:
    """The child: run one experiment and write its outcome."""
    from utils.timing import use_one_thread

    name, device, answer = arguments
    use_one_thread()
    outcome = run_here(name, device)
    temporary = Path(f"{answer}.tmp")
    temporary.write_text(json.dumps(vars(outcome), allow_nan=False), encoding="utf-8")
    temporary.replace(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
