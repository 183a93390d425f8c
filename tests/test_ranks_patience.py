"""When run_ranks stops to wait, with stand-ins for ranks and a clock that is set by hand."""

from types import SimpleNamespace

import pytest

from utils.ranks import patience
from utils.ranks.job import Finished, Raised
from utils.ranks.patience import Patience
from utils.ranks.report import error_of
from utils.ranks.whereabouts import Line, Where


def where(waiting=True, alone=True, calls=1, cpu_s=0.0):
    return Where((Line("f.py", 3, "worker", 1),), "all_reduce", waiting, alone, calls, cpu_s)


class Channel:
    """Stands in for a rank that answers each question at once."""

    def __init__(self, answer):
        self.answer, self.member = answer, None

    def send_bytes(self, question):
        if self.answer is not None:
            self.member.where, self.member.owes_answer = self.answer, False


def member(answer=None, report=None):
    channel = Channel(answer)
    channel.member = SimpleNamespace(
        ended=report is not None,
        report=report,
        exit_code=None,
        channel=channel,
        where=None,
        owes_answer=False,
        noted=None,
    )
    return channel.member


DIFFERENT = ({(7, 1): 11}, {(7, 1): 12})
SAME = ({(7, 1): 11}, {(7, 1): 11})


def verdict_of(monkeypatch, members, until_s, timeout_s=100.0, turns=DIFFERENT):
    """Let the clock run in steps of a tenth of a second: the verdict, and when it came."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock.now_s)
    waiting = Patience(timeout_s)
    pages = [SimpleNamespace(calls=1, turns=lambda own=own: own) for own in turns]
    while clock.now_s < until_s:
        if verdict := waiting.verdict(members, pages):
            return verdict, round(clock.now_s, 1)
        clock.now_s += 0.1
    return "", until_s


FINISHED = Finished(b"")
FAILED = Raised("work", "ValueError", "bad", (), 0.0)


def test_ranks_that_all_wait_are_stuck_after_some_seconds(monkeypatch):
    verdict, when_s = verdict_of(monkeypatch, [member(where()), member(where())], 10)
    assert verdict == "stuck" and 2.5 <= when_s <= 4


@pytest.mark.parametrize(
    ("turns", "at_least_s"), [(SAME, 15), (({}, {}), 2.5), (({}, {(7, 1): 11}), 2.5)]
)
def test_ranks_that_have_called_the_same_get_more_time(monkeypatch, turns, at_least_s):
    """They will meet, unless a machine without a free core keeps them waiting."""
    members = [member(where()), member(where())]
    verdict, when_s = verdict_of(monkeypatch, members, 30, turns=turns)
    assert verdict == "stuck" and at_least_s <= when_s <= 1.3 * at_least_s


def test_a_rank_that_waits_for_one_that_has_ended_gets_none(monkeypatch):
    members = [member(where()), member(None, FINISHED)]
    verdict, when_s = verdict_of(monkeypatch, members, 30, turns=SAME)
    assert verdict == "stuck" and 2.5 <= when_s <= 4


def test_a_failure_makes_it_soon(monkeypatch):
    verdict, when_s = verdict_of(monkeypatch, [member(where()), member(None, FAILED)], 10)
    assert verdict == "stuck" and when_s <= 1


@pytest.mark.parametrize(
    "answer", [where(waiting=False), where(alone=False), None], ids=["works", "thread", "silent"]
)
def test_ranks_that_may_still_act_run_into_the_limit(monkeypatch, answer):
    members = [member(answer), member(where())]
    verdict, when_s = verdict_of(monkeypatch, members, 200, timeout_s=50)
    assert verdict == "late" and 50 <= when_s <= 52


def test_a_rank_that_computes_is_not_stuck(monkeypatch):
    busy = member(where())

    def answers(question):
        busy.where, busy.owes_answer = where(cpu_s=patience.time.monotonic()), False

    busy.channel.send_bytes = answers
    assert verdict_of(monkeypatch, [busy, member(where())], 20) == ("", 20)


def test_when_a_rank_has_failed_the_others_get_some_seconds_to_end(monkeypatch):
    members = [member(where(waiting=False)), member(None, FAILED)]
    verdict, when_s = verdict_of(monkeypatch, members, 20)
    assert verdict == "late" and 2.9 <= when_s <= 3.3
    text = str(error_of(members, verdict, 100))
    assert text == "rank 1 failed first: ValueError: bad\nrank 0 was stopped."


def test_all_that_reported_are_complete(monkeypatch):
    members = [member(None, FINISHED), member(None, FINISHED)]
    assert verdict_of(monkeypatch, members, 1) == ("complete", 0.0)
    assert error_of(members, "complete", 1) is None


def test_a_peer_that_was_lost_is_not_the_story():
    lost = Raised("work", "RuntimeError", "[x/gloo/transport/tcp/pair.cc] Connection closed", (), 1)
    members = [member(None, lost), member(None, FAILED)]
    assert str(error_of(members, "complete", 1)) == (
        "rank 1 failed first: ValueError: bad\nrank 0 fell with it."
    )
    only = error_of([member(None, lost), member(None, FINISHED)], "complete", 1)
    assert str(only).startswith("rank 0 failed first: RuntimeError: [x/gloo")


def test_failures_far_apart_are_told_in_the_order_of_time():
    late = Raised("work", "KeyError", "late", (Line("none.py", 2, "f", 1),), 10.0)
    error = error_of([member(None, late), member(None, FAILED)], "complete", 1)
    assert str(error).splitlines() == [
        "rank 1 failed first: ValueError: bad",
        "rank 0 raised KeyError: late (line 2 of f).",
    ]
