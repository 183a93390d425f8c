"""What went wrong on the ranks, in sentences that are the same on every run.

How it works: the ranks' reports are sorted into who failed by itself, who died, who waited where
and who lost a peer. The first of these that applies is the story; the others follow in a clause.
Paths, addresses and times are left out, so that a notebook may print the message.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from utils.checks.helpers import one_line
from utils.ranks.job import Finished, Raised
from utils.ranks.words import call_text, clean, death_text, grouped, in_call, names, place_text

if TYPE_CHECKING:
    from utils.ranks.member import Member

TOGETHER_S = 1.0  # failures so close have no order that a second run would repeat
_LOST_PEER = re.compile(
    r"Connection (closed|reset)|Broken pipe|Socket closed|gloo/transport|remote process exited"
)
_NO_MEMORY = re.compile(r"^MemoryError|OutOfMemory|can't allocate memory|bad_alloc")
NO_MEMORY = (
    "There was no memory left for it: take fewer ranks, or a smaller batch, model or tensor."
)
_AGREE = (
    "All ranks of a group must call the same collectives, in the same order and with the same "
    "shapes."
)


class RankError(RuntimeError):
    """A run that did not succeed. `results` holds what the ranks that finished have returned.

    `rank` is the first that failed, None when ranks wait for each other; `error_type` is the name
    of its exception's type, "" when there was none.
    """

    def __init__(
        self, text: str, rank: int | None = None, error_type: str = "", results: Any = None
    ) -> None:
        super().__init__(text)
        self.rank, self.error_type, self.results = rank, error_type, results or {}

    def _render_traceback_(self) -> list[str]:
        """In a notebook the message is all: the frames between it and the ranks say nothing."""
        return [f"{type(self).__name__}: {self}"]


def error_of(members: Sequence[Member], verdict: str, timeout_s: float) -> RankError | None:
    """The exception for how these ranks ended; None when all have finished."""
    raised = {r: m.report for r, m in enumerate(members) if isinstance(m.report, Raised)}
    dead = [rank for rank, member in enumerate(members) if member.exit_code is not None]
    own = {rank: report for rank, report in raised.items() if not _lost_a_peer(report)}
    if own:
        first = _first(own)
        text = [_story_of(own, first), *_others(members, {first, *_same(own, first)})]
        return RankError("\n".join(text), first, own[first].type)
    if dead:
        if any(members[rank].exit_code == -signal.SIGABRT for rank in dead) and _differ(
            members, dead
        ):
            return RankError("\n".join(_mismatch(members)))
        text = [f"{names([rank])} {death_text(members[rank].exit_code or 0)}" for rank in dead]
        return RankError("\n".join([*text, *_others(members, set(dead))]), dead[0])
    if raised:
        first = min(raised)
        text = [_story_of(raised, first), *_others(members, {first})]
        return RankError("\n".join(text), first, raised[first].type)
    if verdict == "complete":
        return None
    return RankError("\n".join(_stopped(members, timeout_s)))


def _first(own: dict[int, Raised]) -> int:
    """Who failed first; among those that failed together, the lowest rank."""
    earliest_s = min(report.when_s for report in own.values())
    return min(rank for rank, report in own.items() if report.when_s < earliest_s + TOGETHER_S)


def _same(own: dict[int, Raised], first: int) -> list[int]:
    key = own[first].type, own[first].message, own[first].stage
    return [r for r, report in own.items() if (report.type, report.message, report.stage) == key]


def _story_of(own: dict[int, Raised], first: int) -> str:
    ranks, report = _same(own, first), own[first]
    who = f"{names(ranks)} failed" if len(ranks) > 1 else f"rank {first} failed first"
    what = f"{report.type}: {clean(report.message)}".removesuffix(": ")
    if report.stage == "result":
        return f"{names(ranks)} returned what cannot be sent back: {clean(report.message)}."
    if report.stage != "work":
        who += " reading the worker" if report.stage == "load" else " starting"
    advice = [NO_MEMORY] * bool(_NO_MEMORY.search(f"{report.type}: {report.message}"))
    return "\n".join(
        [f"{who}: {what}", *(f"  {place_text(line)}" for line in report.lines), *advice]
    )


def _differ(members: Sequence[Member], dead: Sequence[int]) -> bool:
    """Whether the ranks' collectives do not fit together; a rank may also be aborted without."""
    noted = [member.noted for member in members]
    if any(noted[rank] is not None and noted[rank].kind in ("send", "recv") for rank in dead):
        return len({note and (note.kind, note.num_values, note.dtype) for note in noted}) > 1
    turns: dict[tuple[int, int], int] = {}
    return any(
        turns.setdefault(turn, word) != word
        for member in members
        for turn, word in member.turns.items()
    )


def _mismatch(members: Sequence[Member]) -> list[str]:
    """gloo may abort any of the ranks, so what each one has called is told instead."""
    clauses = grouped([f"called{in_call(member.noted) or ' nothing'}" for member in members])
    head = "The ranks' collectives do not fit together, and gloo aborts the process then (SIGABRT)."
    return [head, *clauses, _AGREE]


def _stopped(members: Sequence[Member], timeout_s: float) -> list[str]:
    waited_for = [member for member in members if not member.ended]
    clauses = grouped([_clause(member) for member in members])
    if all(member.where and member.where.waiting for member in waited_for):
        return ["The ranks wait for each other and none can go on.", *clauses, _AGREE]
    more = "If they need longer, give run_ranks a larger timeout_s."
    return [f"The ranks did not finish in {timeout_s:g} s and were stopped.", *clauses, more]


def _others(members: Sequence[Member], told: set[int]) -> list[str]:
    """What the ranks not yet told of did. Where one computed when it was stopped is chance."""
    return grouped(
        [
            "" if rank in told else "was stopped" if _at_work(member) else _clause(member)
            for rank, member in enumerate(members)
        ]
    )


def _at_work(member: Member) -> bool:
    return not member.ended and not (member.where and member.where.waiting)


def _clause(member: Member) -> str:
    report = member.report
    if isinstance(report, Finished):
        return "had finished"
    if isinstance(report, Raised):
        if _lost_a_peer(report):
            return f"fell with it{in_call(member.noted, ' in')}"
        place = f" ({place_text(report.lines[-1])})" if report.lines else ""
        return f"raised {report.type}: {one_line(clean(report.message), 120)}{place}"
    if member.exit_code is not None:
        return death_text(member.exit_code).removesuffix(".")
    if member.where is None:
        return "gave no answer: it was inside one long call of C code"
    return _position(member)


def _position(member: Member) -> str:
    where, noted = member.where, member.noted
    line = where.lines[-1] if where.lines else None
    verb = "waited in" if where.waiting else "was in"
    if line is None:
        return "was not yet in the worker"
    if noted is not None and where.waiting and noted.line == line:
        return f"waited in {call_text(noted)}, {place_text(line)}"
    inside = f"{where.inside}, " if where.inside else ""
    last = f"its last collective was {call_text(noted)}" if noted else "it has called no collective"
    return f"{verb} {inside}{place_text(line)}; {last}"


def _lost_a_peer(report: Raised) -> bool:
    return bool(_LOST_PEER.search(report.message))
