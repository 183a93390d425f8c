"""What lab 09's search for an overwrite is judged by: logs of buffers, safe ones and others.

How it works: a log says who filled or used which buffer from when to when. Most come from the
simulator: steps of YaFSDP with their waits, or with some of them forgotten; the others are made by
hand, one for each way in which a search can be wrong. `hurt` finds all that is overwritten.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from utils.checks.truth_09_waits import FILLED, Case, Wait, waits_of, with_waits
from utils.simulate import simulate


@dataclass(frozen=True)
class Use:
    """`task` fills `buffer` with `layer`'s values (`fills`), or uses them, from start to end."""

    task: str
    buffer: str
    layer: str
    fills: bool
    start_s: float
    end_s: float


Log = Sequence[Use]
Found = tuple[str, str, float]  # who overwrites, whom, when


def hurt(log: Log) -> list[Found]:
    """All overwrites, in time."""
    found = []
    for use in log:
        if not use.fills:
            since_s = filled_s(log, use)
            found += [
                (each.task, use.task, each.start_s) for each in log
                if each.fills and each.buffer == use.buffer and each.layer != use.layer
                and since_s < each.start_s < use.end_s
            ]  # fmt: skip
    return sorted(found, key=lambda each: each[2])


def filled_s(log: Log, use: Use, choose: Callable = max) -> float:
    """When the filling began that brought the values of this use."""
    starts = [each.start_s for each in log if each.fills and each.layer == use.layer
              and each.buffer == use.buffer and each.start_s < use.start_s]  # fmt: skip
    return choose(starts)


def log_of(case: Case, drop: Callable[[Wait], bool] = lambda _: False) -> list[Use]:
    """A simulated step in which some waits are forgotten, in the order of issue."""
    waits = [each for each in waits_of(case.tasks, case.accesses) if not drop(each)]
    timeline = simulate(with_waits(case.tasks, waits))
    spans = {span.task.name: span for span in timeline.spans}
    return [Use(a.task, a.buffer, a.content, a.writes, spans[a.task].start_s, spans[a.task].end_s)
            for a in case.accesses]  # fmt: skip


def _without(log: list[Use], task: str) -> list[Use]:
    return [use for use in log if use.task != task]


def _by_hand(*rows: tuple) -> list[Use]:
    return [Use(*row) for row in rows]


def _shuffled(log: list[Use], seed: int) -> list[Use]:
    random.Random(seed).shuffle(log)
    return log


def is_hasty(wait: Wait) -> bool:
    """A gather that fills a buffer which is in use."""
    return wait.task.startswith("gather") and wait.kind != FILLED


def is_early(wait: Wait) -> bool:
    """A backward that fills a buffer which is being sent."""
    return wait.buffer.startswith("gradients") and wait.kind != FILLED


FAST, SLOW = (0.5, 2.0, 4.0, 1.0), (3.0, 1.0, 2.0, 5.0)
STAGE_3, STAGE_2 = Case("", 5, FAST), Case("", 4, SLOW, zero_stage=2)
LOGS: tuple[tuple[str, list[Use]], ...] = (
    ("a safe step", _shuffled(log_of(STAGE_3), 0)),
    ("a safe step with slow messages", _shuffled(log_of(replace(STAGE_3, seconds=SLOW)), 1)),
    ("an empty log", []),
    ("a layer that refreshes its own values", _by_hand(
        ("gather a", "weights 0", "a", True, 0, 1), ("forward a", "weights 0", "a", False, 1, 5),
        ("gather a again", "weights 0", "a", True, 2, 3),
        ("gather b", "weights 0", "b", True, 5, 6))),
    ("gathers that wait for nobody", _shuffled(log_of(STAGE_3, is_hasty), 2)),
    ("backwards that wait for no reduction", _shuffled(log_of(STAGE_2, is_early), 3)),
    ("a step that leaves a gather out", _shuffled(
        _without(log_of(STAGE_3), "gather backward b"), 4)),
    ("a message that reads for long", _by_hand(
        ("backward a", "gradients 0", "a", True, 0, 2),
        ("send a far", "gradients 0", "a", False, 2, 9),
        ("send a near", "gradients 0", "a", False, 2.5, 3),
        ("backward b", "gradients 1", "b", True, 2, 4),
        ("send b", "gradients 1", "b", False, 4, 5),
        ("backward c", "gradients 0", "c", True, 6, 8),
        ("send c", "gradients 0", "c", False, 9, 10))),
    ("two overwrites", _by_hand(
        ("gather d", "weights 1", "d", True, 7, 8), ("forward b", "weights 1", "b", False, 3, 8),
        ("gather b", "weights 1", "b", True, 2, 3), ("gather c", "weights 0", "c", True, 4, 6),
        ("forward a", "weights 0", "a", False, 1, 5), ("gather a", "weights 0", "a", True, 0, 1),
        ("forward c", "weights 0", "c", False, 8, 9), ("forward d", "weights 1", "d", False, 9, 10))
     ),
)  # fmt: skip
