"""When to stop waiting for ranks: all have reported, the time is up, or nobody can go on.

How it works: ranks that wait for each other for ever are told from ranks that compute. When no
collective has begun for a second, or a rank has failed, each rank is asked where it is. If all that
have not ended wait in a collective, at the same line as before and without using the processor, in
several answers, then nothing can come that would wake them. Ranks whose last collectives were the
same ones will most likely meet, on a machine that has no core for them: they get more time.

Left out: ranks that sleep, compute, wait for something else or have threads of their own (a slow
link), which may still act; those run into the time limit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from utils.ranks.child import Finished
from utils.ranks.page import Page

if TYPE_CHECKING:
    from utils.ranks.member import Member

QUIET_S = 1.0  # no collective for so long: ask
ASK_S, ROUNDS = 0.5, 3  # a question each half second; three times the same answer as before
ROUNDS_AGREED = 30  # when all have called the same
ASK_AFTER_FAILURE_S, ROUNDS_AFTER_FAILURE = 0.1, 3
GRACE_S = 3.0  # for ranks that still compute when another has failed
ANSWER_S = 1.0  # for the last answer when the time is up
BUSY = 0.2  # of one core: less is waiting


class Patience:
    """`verdict(...)` is "" while waiting makes sense, else why it ended."""

    def __init__(self, timeout_s: float) -> None:
        now_s = time.monotonic()
        self._deadline_s, self._last_question_s = now_s + timeout_s, 0.0
        self._moved_s, self._calls = now_s, ()
        self._failed_s: float | None = None
        self._rounds, self._seen, self._cpu_s = 0, None, 0.0
        self._too_late_s: float | None = None

    def verdict(self, members: Sequence[Member], pages: Sequence[Page]) -> str:
        """Look at the ranks, ask them if need be, and say whether to go on."""
        waited_for = [member for member in members if not member.ended]
        if not waited_for:
            return "complete"
        now_s = time.monotonic()
        if self._failed_s is None and _any_failed(members):
            self._failed_s, self._rounds = now_s, 0
        if self._too_late_s is None and now_s > self._deadline_s:
            self._too_late_s = now_s
            for member in waited_for:
                member.where = None
            self._ask(waited_for, now_s)
        if self._too_late_s is not None:
            answered = all(member.where for member in waited_for)
            return "late" if answered or now_s > self._too_late_s + ANSWER_S else ""
        if self._failed_s is not None and now_s > self._failed_s + GRACE_S:
            return "late"
        return self._questions(waited_for, pages, now_s)

    def _questions(self, waited_for: list[Member], pages: Sequence[Page], now_s: float) -> str:
        calls = tuple(page.calls for page in pages)
        if calls != self._calls:
            self._calls, self._moved_s, self._rounds = calls, now_s, 0
        failed = self._failed_s is not None
        if not failed and now_s < self._moved_s + QUIET_S:
            return ""
        pause_s = ASK_AFTER_FAILURE_S if failed else ASK_S
        if now_s < self._last_question_s + pause_s:
            return ""
        elapsed_s = now_s - self._last_question_s
        self._rounds = self._rounds + 1 if self._stands_still(waited_for, elapsed_s) else 0
        agreed = len(waited_for) == len(pages) and _agree(pages)
        enough = ROUNDS_AFTER_FAILURE if failed else ROUNDS_AGREED if agreed else ROUNDS
        if self._rounds >= enough:
            return "stuck"
        self._ask(waited_for, now_s)
        return ""

    def _stands_still(self, waited_for: list[Member], elapsed_s: float) -> bool:
        """Whether the answers to the last question are those to the one before."""
        answers = [member.where for member in waited_for]
        if not all(answers) or any(member.owes_answer for member in waited_for):
            return False
        seen = tuple((answer.lines, answer.calls, answer.waiting) for answer in answers)
        cpu_s = sum(answer.cpu_s for answer in answers)
        same = seen == self._seen and cpu_s - self._cpu_s < BUSY * elapsed_s
        self._seen, self._cpu_s = seen, cpu_s
        return same and all(answer.waiting and answer.alone for answer in answers)

    def _ask(self, waited_for: list[Member], now_s: float) -> None:
        self._last_question_s = now_s
        for member in waited_for:
            if not member.owes_answer:  # questions to a rank that cannot answer would pile up
                member.owes_answer = True
                with contextlib.suppress(OSError):  # it has just died
                    member.channel.send_bytes(b"where are you?")


def _agree(pages: Sequence[Page]) -> bool:
    """Whether all ranks have called the same collectives of the same groups, as far as noted."""
    first, *others = [page.turns() for page in pages]
    return bool(first) and all(turns == first for turns in others)


def _any_failed(members: Sequence[Any]) -> bool:
    return any(m.ended and not isinstance(m.report, Finished) for m in members)
