"""Lanes: the order of messages, what waiting means, and an error on the way."""

import threading
import time
from functools import partial

import pytest
import torch

from utils.ranks import SlowLink
from utils.techniques.lane import InlineLane, StreamLane, ThreadLane

LANES = {"inline": InlineLane, "thread": ThreadLane, "slow link": lambda: SlowLink(1e9)}


@pytest.mark.parametrize("name", LANES)
def test_messages_are_carried_out_in_the_order_of_issue(name):
    lane, done = LANES[name](), []

    def message(number):
        time.sleep(0.002 * (3 - number))  # the first takes longest
        done.append(number)

    pending = [lane.issue(lambda n=n: message(n), 8, f"message {n}") for n in range(4)]
    pending[2].wait()
    assert done[:3] == [0, 1, 2]
    lane.close()
    assert done == [0, 1, 2, 3]
    for each in pending:
        each.wait()


@pytest.mark.parametrize("name", ["thread", "slow link"])
def test_the_caller_goes_on_while_a_message_is_under_way(name):
    lane, goes_on = LANES[name](), threading.Event()
    pending = lane.issue(lambda: goes_on.wait(10), 8, "message")
    goes_on.set()  # an inline lane would never come here
    pending.wait()
    lane.close()


@pytest.mark.parametrize("name", ["thread", "slow link"])
def test_after_an_error_nothing_behind_it_is_carried_out(name):
    """The message behind it would wait for ranks that it has left behind, for ever."""
    lane, done, begins = LANES[name](), [], threading.Event()

    def fails():
        begins.wait(10)
        raise ValueError("the wire is cut")

    first = lane.issue(fails, 8, "first")
    second = lane.issue(lambda: done.append(2), 8, "second")
    begins.set()
    for pending in (second, first, lane.issue(lambda: done.append(3), 8, "third")):
        with pytest.raises(ValueError, match="the wire is cut"):
            pending.wait()
    assert done == []
    lane.close()


def test_an_error_inline_is_raised_at_once():
    def fails():
        raise ValueError("the wire is cut")

    with pytest.raises(ValueError, match="the wire is cut"):
        InlineLane().issue(fails, 8, "message")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_stream_waits_for_compute_and_compute_for_the_stream():
    lane = StreamLane()
    x = torch.ones(1 << 20, device="cuda")
    for _ in range(20):
        y = torch.zeros_like(x)
        x += 1
        pending = lane.issue(partial(y.copy_, x), 8, "message")
        pending.wait()
        assert torch.equal(x, y)
    lane.close()
