"""One rank as the notebook's process holds it: how it is started, and how it is killed.

How it works: multiprocessing starts the process; on Linux it asks the server of ranks, a process
that has imported torch (`utils.ranks.server`), to fork.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from utils.ranks.child import rank_main
from utils.ranks.job import Finished, Job, Raised
from utils.ranks.output import Captured
from utils.ranks.page import Noted
from utils.ranks.server import server_has_ended, start_helpers, without_main
from utils.ranks.whereabouts import Where

SERVER_ENDS_S = 0.5  # from its last sign of life to its end


@dataclass
class Member:
    """One rank as its crew sees it: its ends of the pipes, and what became of it."""

    process: BaseProcess
    channel: Connection
    out: Captured
    err: Captured
    report: Finished | Raised | None = None
    exit_code: int | None = None  # of a rank that died before it had reported
    where: Where | None = None  # its last answer
    owes_answer: bool = False
    noted: Noted | None = None  # its last collective
    turns: dict[tuple[int, int], int] = field(default_factory=dict)  # `Page.turns`

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come from it."""
        return self.report is not None or self.exit_code is not None


def start(context: Any, job: Job) -> Member:
    """Start one rank."""
    channel, their_channel = context.Pipe(duplex=True)
    (out, their_out), (err, their_err) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    process = _started(context, (job, their_channel, their_out, their_err))
    for theirs in (their_channel, their_out, their_err):
        theirs.close()
    ours = [os.dup(connection.fileno()) for connection in (out, err)]
    out.close()
    err.close()
    return Member(process, channel, *map(Captured, ours))


def _started(context: Any, arguments: tuple) -> BaseProcess:
    """A process that runs; a server that has just died is noticed only when it does not answer."""
    for pause_s in (0.1, 0.5, 0.0):
        start_helpers(context.get_start_method())
        process = context.Process(target=rank_main, args=arguments)
        try:
            with without_main():
                process.start()
            return process
        except (EOFError, ConnectionError):
            time.sleep(pause_s)
    raise RuntimeError("The server that ranks come from ends at once: restart the kernel.")


def exit_code_of(process: BaseProcess) -> int:
    """How a process has ended. Of a rank whose server died before it multiprocessing knows only 255
    (that server kills its ranks).
    """
    code = process.exitcode
    end_s = time.monotonic() + SERVER_ENDS_S
    while code == 255 and time.monotonic() < end_s:
        if server_has_ended():
            return -signal.SIGKILL
        time.sleep(0.01)
    return -signal.SIGKILL if code is None else code


def kill(process: BaseProcess) -> None:
    """Kill a rank and what it has started; a rank leads a process group of its own."""
    process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
