"""Which wrong search leads to which answer in lab 09's logs: each is wrong in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from utils.checks.truth_09_overwrite import LOGS, Found, Log, Use, filled_s, hurt


def _first(found: list[Found]) -> Found | None:
    return found[0] if found else None


def _search(log: Log, hits: Callable[[Use, Use], bool]) -> Found | None:
    """The first filling, in time, that `hits` says does harm to a use."""
    found = [(fill.task, use.task, fill.start_s) for fill in log if fill.fills
             for use in log if not use.fills and use is not fill and hits(fill, use)]  # fmt: skip
    return _first(sorted(found, key=lambda each: each[2]))


def _touching(log: Log) -> Found | None:
    return _search(log, lambda f, u: f.buffer == u.buffer and f.layer != u.layer
                   and filled_s(log, u) < f.start_s <= u.end_s)  # fmt: skip


def _same_layer(log: Log) -> Found | None:
    return _search(log, lambda f, u: f.buffer == u.buffer
                   and filled_s(log, u) < f.start_s < u.end_s)  # fmt: skip


def _any_buffer(log: Log) -> Found | None:
    return _search(log, lambda f, u: f.layer != u.layer and f.buffer[0] == u.buffer[0]
                   and filled_s(log, u) < f.start_s < u.end_s)  # fmt: skip


def _no_buffers(log: Log) -> Found | None:
    return _search(log, lambda f, u: f.layer != u.layer
                   and filled_s(log, u) < f.start_s < u.end_s)  # fmt: skip


def _running_only(log: Log) -> Found | None:
    return _search(log, lambda f, u: f.buffer == u.buffer and f.layer != u.layer
                   and u.start_s <= f.start_s < u.end_s)  # fmt: skip


def _first_filling(log: Log) -> Found | None:
    return _search(log, lambda f, u: f.buffer == u.buffer and f.layer != u.layer
                   and filled_s(log, u, min) < f.start_s < u.end_s)  # fmt: skip


def _no_messages(log: Log) -> Found | None:
    found = [each for each in hurt(log) if not each[1].startswith(("send", "reduce"))]
    return _first(found)


def _neighbours(log: Log) -> Found | None:
    """Each filling is compared with the use that began last before it."""
    last = {f.task: max((u.start_s for u in log if not u.fills and u.buffer == f.buffer
                         and u.start_s <= f.start_s), default=-1.0) for f in log if f.fills}
    starts = {use.task: use.start_s for use in log if not use.fills}
    return _first([each for each in hurt(log) if starts[each[1]] == last[each[0]]])


def _in_order_of_log(log: Log) -> Found | None:
    found, order = hurt(log), {use.task: place for place, use in enumerate(log)}
    return min(found, key=lambda each: order[each[0]], default=None)


def _in_order_of_uses(log: Log) -> Found | None:
    found, order = hurt(log), {use.task: place for place, use in enumerate(log)}
    return min(found, key=lambda each: order[each[1]], default=None)


def _swapped(log: Log) -> Found | None:
    found = _first(hurt(log))
    return found and (found[1], found[0], found[2])


def _at(moment: Callable[[Use, Use], float]) -> Callable[[Log], Found | None]:
    """The first overwrite with another time, that of `moment(filling, use)`."""

    def search(log: Log) -> Found | None:
        found, by_task = _first(hurt(log)), {use.task: use for use in log}
        return found and (*found[:2], moment(by_task[found[0]], by_task[found[1]]))

    return search


def _last_one(log: Log) -> Found | None:
    return (hurt(log) or [None])[-1]


WHEN = "the time is that at which the task that overwrites begins"
MISTAKES: tuple[tuple[str, Callable[[Log], Found | None]], ...] = (
    ("no overwrite is ever found", lambda log: None),
    ("to end and to begin at the same moment is no overlap", _touching),
    ("a layer that fills a buffer with its own values again takes them from nobody", _same_layer),
    ("buffers are not told apart: weights 0 is not weights 1", _any_buffer),
    ("buffers are not told apart: each has values of its own", _no_buffers),
    ("a use that has not begun yet needs the values, too: they are needed from their filling on",
     _running_only),
    ("values are filled in anew: a use needs those of the latest filling before it",
     _first_filling),
    ("messages in flight are ignored: a reduction reads its buffer until it ends", _no_messages),
    ("only neighbours in time are compared: a use that began earlier may still run", _neighbours),
    ("this is an overwrite, but not the first in time: the log is in no particular order",
     _in_order_of_log),
    ("this is an overwrite, but not the first in time: the log is in no particular order",
     _in_order_of_uses),
    ("this is an overwrite, but not the first in time", _last_one),
    ("who overwrites comes first, then whom", _swapped),
    (WHEN, _at(lambda fill, use: use.start_s)),
    (WHEN, _at(lambda fill, use: fill.end_s)),
)  # fmt: skip


def name_of(results: Sequence[object], place: int) -> str:
    """The mistake that explains the answers to all logs, or to this one, or nothing."""
    for numbers in (range(len(LOGS)), [place]):
        for text, search in MISTAKES:
            if all(search(LOGS[number][1]) == results[number] for number in numbers):
                return text
    return ""
