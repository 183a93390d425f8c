"""Run a learner's function on real ranks, and turn whatever happens there into a verdict.

How it works: a judge gives `on_ranks` a trial, a function of the course that calls the answer on
each rank and returns plain data, and compares what comes back. An exception of the answer, ranks
that wait for each other and a dead rank arrive from `run_ranks` as a RankError, whose sentences
are kept; only its kind is translated into the engine's outcomes. A stub is recognised on the rank,
where its `raise` is. Trials may call `require`: what they say arrives as it is.

Left out: NCCL; checks send tensors of the CPU over gloo, so that they run alike everywhere.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from utils.checks.blame import is_stub
from utils.checks.helpers import NotYet
from utils.ranks.launch import default_start_method, run_ranks
from utils.ranks.report import RankError

TIMEOUT_S = {"forkserver": 15.0, "spawn": 60.0}  # spawned ranks import torch first
MORE_TIME = 4  # times that, once, if the machine was so busy that no rank has reached the answer
_STORY = re.compile(r"^(ranks? [\d, and]+) failed(?: first)?: (.*)$")
_LATE = re.compile(r"^The ranks did not finish in .* s and were stopped\.$")


class NotAttempted(NotYet):
    """The answer is still a stub."""

    status = "not attempted"

    def __init__(self) -> None:
        super().__init__("the stub")

    def __str__(self) -> str:
        return ""


class RaisedOnRank(NotYet):
    """An exception of the learner's code on a rank."""

    status = "raised"


class StoppedOnRank(NotYet):
    """The learner's code was still running when the time of the ranks was up."""

    status = "stopped"


class _Untouched:
    """What a rank returns that met a stub."""


@dataclass(frozen=True)
class _Attempt:
    """The worker. `run_ranks` looks at `func`, as it does for a partial, to send it by value."""

    func: Any
    trial: Callable[..., Any]
    more: tuple

    def __call__(self, rank: int, world_size: int) -> Any:
        try:
            return self.trial(rank, world_size, self.func, *self.more)
        except NotImplementedError as error:
            if is_stub(error):
                return _Untouched()
            raise


def on_ranks(
    trial: Callable[..., Any], world_size: int, answer: Any, *more: Any, likely: str = ""
) -> list[Any]:
    """Return `[trial(rank, world_size, answer, *more) for each rank]`, each run by a process.

    `likely` names the mistake that leads to ranks whose messages do not meet here. Raises NotYet,
    or one of its kinds above, when the answer is a stub, raises, hangs or cannot be sent.
    """
    attempt, timeout_s = _Attempt(answer, trial, more), TIMEOUT_S[default_start_method()]
    try:
        results = _run(attempt, world_size, timeout_s)
    except RankError as error:
        if any(isinstance(result, _Untouched) for result in error.results.values()):
            raise NotAttempted from None
        raise _verdict(error, likely) from None
    except (TypeError, RuntimeError) as error:  # no rank was started
        raise NotYet(str(error).replace("`func`, used by the worker,", "your answer")) from None
    if any(isinstance(result, _Untouched) for result in results):
        raise NotAttempted
    return results


def _run(attempt: _Attempt, world_size: int, timeout_s: float) -> list[Any]:
    try:
        return run_ranks(attempt, world_size, timeout_s=timeout_s, backend="gloo")
    except RankError as error:
        if not _none_began(error):
            raise
    return run_ranks(attempt, world_size, timeout_s=MORE_TIME * timeout_s, backend="gloo")


def _none_began(error: RankError) -> bool:
    """Whether the time was up before any rank had come to the learner's code."""
    first, *rest = str(error).split("\n")  # then who was where, then advice
    return bool(_LATE.match(first)) and all("not yet in the worker" in each for each in rest[:-1])


def _verdict(error: RankError, likely: str) -> NotYet:
    if _none_began(error):
        return StoppedOnRank("The ranks did not start in time, and your code was not reached",
                             likely="this machine is busy with other programs")  # fmt: skip
    first, *rest = str(error).split("\n")
    story = _STORY.match(first)
    if story and error.error_type == "NotYet":
        return NotYet(story[2].removeprefix("NotYet: "))
    places = list(itertools.takewhile(lambda line: line.startswith("  "), rest))
    if story and places:
        return RaisedOnRank(f"{story[2]} (on {story[1]}, {places[-1].strip()})")
    if _LATE.match(first):
        text = "\n".join([first, *rest[:-1]])  # the last line is advice for callers of run_ranks
        return StoppedOnRank(text, likely="a loop that never ends")
    do_not_meet = error.rank is None or "SIGABRT" in first  # gloo aborts when sizes differ
    return NotYet(str(error), likely=likely if do_not_meet else "")
