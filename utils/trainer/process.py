"""A command with everything that it starts, ended as one.

How it works: it runs in a session of its own, so that Ctrl-C in a notebook meets the notebook only,
with one thread a rank and a pipe as input that nobody writes to. torchrun, told to end, ends its
ranks; ranks that outlive it see their torchrun or the pipe close (`group.watch_parent`).

Left out: processes that a rank starts itself; the trainer starts none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from utils.trainer.group import WATCHES
from utils.trainer.output import KeptOutput, reason

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 5.0  # that torchrun gets to end its ranks


class WatchedProcess:
    """The command and what it prints, with all that it starts."""

    def __init__(self, words: list[str]) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", WATCHES: "1",
            "PYTHONPATH": os.pathsep.join(paths),
        }  # fmt: skip
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            environment.pop(name, None)
        self._output = KeptOutput()
        self.is_late = False
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def code(self) -> int:
        """0 if the run has finished."""
        return self._process.returncode

    @property
    def output(self) -> str:
        """What was printed; of very much the end."""
        return self._output.text

    @property
    def reason(self) -> str:
        """Why it has failed."""
        return reason(self.code, self.output, self._output.sentences)

    def follow(self, deadline_s: float, tell: Callable[[], None]) -> None:
        """Until it has ended or the time is up; `tell` is called every now and then."""
        while True:
            has_ended = self._process.poll() is not None
            tell()
            if has_ended:
                return
            if time.monotonic() > deadline_s:
                self.is_late = True
                return
            time.sleep(0.1)

    def stop(self) -> None:
        """End whatever still runs; at its normal end nothing does."""
        self._send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S if self._process.poll() is None else 0)
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # what ranks watch
        self._send(signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=PATIENCE_S)

    def _send(self, number: int) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, number)

    def _read(self) -> None:
        with contextlib.suppress(ValueError), self._process.stdout as lines:
            self._output.take(lines)
