"""The ranks' processes, from start to end: whatever happens, none is left.

How it works: a thread starts the ranks, listens to their reports, prints and deaths, and ends all
of them when the last has reported, or when no more will come. The caller only waits for that
thread, so Ctrl-C may strike at any moment: the thread then ends the ranks all the same.

Left out: what the outcome means (`utils.ranks.report`), when waiting is in vain (`patience`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from utils.ranks.job import Job
from utils.ranks.member import Member, exit_code_of, kill, start
from utils.ranks.page import make_pages
from utils.ranks.patience import Patience
from utils.ranks.scratch import Scratch
from utils.ranks.whereabouts import Where

TICK_S = 0.1  # how soon Ctrl-C or a limit is seen
FAREWELL_S = 5.0  # a killed process is gone in milliseconds


class Crew(threading.Thread):
    """Runs one job on N ranks; `members` and `verdict` tell what happened.

    `verdict` is "complete", "stuck" (all wait for each other), "late", or "" if it was stopped.
    """

    def __init__(self, job: Job, context: Any) -> None:
        super().__init__(daemon=True, name="ranks")
        self.members: list[Member] = []
        self.verdict = ""
        self.error: BaseException | None = None
        self._job, self._context = job, context
        self._all_over, self._give_up = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Return when all ranks have ended, or raise what kept them from starting."""
        while not self._all_over.wait(TICK_S):
            pass
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End all ranks now."""
        self._give_up.set()
        end_s = time.monotonic() + 2 * FAREWELL_S
        while self.ident is not None and not self._all_over.wait(TICK_S):
            if not self.members or time.monotonic() > end_s:
                return  # the server still imports: the thread ends what it then starts

    def run(self) -> None:
        """Start, listen, end."""
        try:
            with Scratch() as scratch:
                try:
                    self._run(scratch)
                finally:
                    self._end_all()
        except BaseException as error:
            self.error = error
        finally:
            self._all_over.set()

    def _run(self, scratch: Scratch) -> None:
        job = replace(self._job, store=scratch.store, pages=scratch.pages, folder=scratch.folder)
        pages = make_pages(scratch.pages, job.world_size)
        for rank in range(job.world_size):
            if self._give_up.is_set():
                return
            self.members.append(start(self._context, replace(job, rank=rank)))
        patience = Patience(job.timeout_s)
        while not self._give_up.is_set():
            self._listen()
            self.verdict = patience.verdict(self.members, pages)
            if self.verdict:
                break
        for member, page in zip(self.members, pages, strict=True):
            member.noted, member.turns = page.last(), page.turns()
            page.close()

    def _listen(self) -> None:
        """Take what has come from any rank, or wait a moment for something to come."""
        sources: dict[Any, tuple[Member, Any]] = {}
        for member in self.members:
            if not member.ended:
                sources[member.channel] = (member, _take_message)
                sources[member.process.sentinel] = (member, _take_death)
            for captured in (member.out, member.err):
                if captured.open:
                    sources[captured.descriptor] = (member, _take_output)
        for source in wait(list(sources), TICK_S):
            member, take = sources[source]
            take(member, source)

    def _end_all(self) -> None:
        for member in self.members:
            kill(member.process)
        for member in self.members:
            member.process.join(FAREWELL_S)
            for captured in (member.out, member.err):
                captured.drain()
                os.close(captured.descriptor)
            member.channel.close()
            with contextlib.suppress(ValueError):  # it would not die: its process is kept
                member.process.close()


def _take_message(member: Member, channel: Connection) -> None:
    try:
        message = channel.recv()
    except (EOFError, OSError):
        _take_death(member, channel)
        return
    if isinstance(message, Where):
        member.where, member.owes_answer = message, False
    else:
        member.report = message


def _take_death(member: Member, source: Any) -> None:
    """The process is gone, or is about to go; a report that it had sent still counts."""
    while not member.ended and source is not member.channel and member.channel.poll():
        _take_message(member, member.channel)
    if not member.ended:
        member.process.join(FAREWELL_S)
        member.exit_code = exit_code_of(member.process)


def _take_output(member: Member, descriptor: int) -> None:
    captured = member.out if descriptor == member.out.descriptor else member.err
    captured.read()
