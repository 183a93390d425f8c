"""Learners who run a whole notebook, watched from outside: memory, CPU seconds, cores.

How it works: each learner is a process (`python -m utils.room_learner NOTEBOOK MARK`) that starts a
real kernel and runs every cell as the build does; it stands for the browser and is not counted. A
cell added at the end rests for some seconds, so that what an open notebook holds can be read.

Left out: a browser, and JupyterHub's own processes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.room_meter import Reading, read_tree
from utils.room_process import LOOK_EVERY_S, ROOT, RoomError, jupyterlab, last_line, started

REST_S = 3.0
CELL_LIMIT_S = 600.0  # thirty learners at once are slow, and that is no failure
REST = "import time\nopen({mark!r}, 'w').close()\ntime.sleep({seconds})"


@dataclass
class Watched:
    """One learner's readings, in order: while cells ran, and after the last one."""

    running: list[Reading] = field(default_factory=list)
    resting: list[Reading] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def peak(self) -> Reading:
        """The moment when the learner held most."""
        both = self.running + self.resting
        return max(both, key=lambda reading: reading.total_own_bytes)

    @property
    def resting_bytes(self) -> int:
        """Held when the last cell has run and the notebook stays open."""
        return max((each.total_own_bytes for each in self.resting), default=0)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the kernel and of everything that it started."""
        return max(each.cpu_s for each in self.running)

    @property
    def busy_cores(self) -> tuple[float, float]:
        """Cores at work on average, too low and too high where other work slows the learner.

        CPU seconds over wall seconds, and the number of threads that ran or waited for a core.
        """
        wanted = sum(each.num_runnable for each in self.running) / len(self.running)
        low = self.cpu_s / self.wall_s
        return low, max(low, wanted)


def watch(notebook: Path, num_learners: int = 1) -> tuple[list[Watched], int]:
    """`num_learners` run a notebook at once: each one's readings, and the peak of their PSS."""
    with _folder() as folder, contextlib.ExitStack() as stack:
        marks = [folder / f"learner-{number}" for number in range(num_learners)]
        runners = []
        for mark in marks:
            command = [sys.executable, "-m", "utils.room_learner", str(notebook), str(mark)]
            log = mark.with_suffix(".log")
            runners.append(stack.enter_context(started(command, log, dict(os.environ))))
        watched = [Watched() for _ in runners]
        most_bytes = _follow(runners, marks, watched)
        for runner, mark, seen in zip(runners, marks, watched, strict=True):
            if runner.returncode or not seen.running:
                why = last_line(mark.with_suffix(".log"))
                raise RoomError(f"The notebook did not run to its end: {why}")
        return watched, most_bytes


def watch_jupyterlab(notebook: Path) -> Reading:
    """What a JupyterLab server holds that has given out its page and a notebook."""
    with _folder() as folder, jupyterlab(folder, notebook) as server:
        return read_tree(server.pid)


def _follow(
    runners: Sequence[subprocess.Popen], marks: Sequence[Path], watched: Sequence[Watched]
) -> int:
    """Read until all have ended; returns the peak of the sum of all learners' PSS."""
    most_bytes, start_s = 0, time.monotonic()
    while any([runner.poll() is None for runner in runners]):
        bytes_now = 0
        for runner, mark, seen in zip(runners, marks, watched, strict=True):
            rests = mark.exists()  # before the reading: what ends after it still counts as running
            reading = read_tree(runner.pid, itself=False)
            bytes_now += reading.pss_bytes
            if reading.num_processes:
                (seen.resting if rests else seen.running).append(reading)
            if not rests:
                seen.wall_s = time.monotonic() - start_s
        most_bytes = max(most_bytes, bytes_now)
        time.sleep(LOOK_EVERY_S)
    return most_bytes


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="course-room-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def main(arguments: Sequence[str]) -> int:
    """The learner: run a notebook, then rest."""
    import nbformat

    from utils.build.plan import BuildError, Draft
    from utils.build.run import run_draft

    path, mark = Path(arguments[0]), arguments[1]
    notebook = nbformat.read(path, as_version=4)
    rest = REST.format(mark=mark, seconds=REST_S)
    notebook.cells.append(nbformat.v4.new_code_cell(rest))
    numbers = tuple(range(1, len(notebook.cells) + 1))
    try:
        run_draft(Draft(path.name, path.name, notebook, numbers), path.parent, ROOT, CELL_LIMIT_S)
    except BuildError as error:
        print(str(error).removesuffix(" Nothing was written."), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
