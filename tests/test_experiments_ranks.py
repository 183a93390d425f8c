"""The experiments of lesson 06: what is recorded on ranks, without a word on how long it took."""

from itertools import pairwise

import pytest

from utils.config import GPTConfig
from utils.experiments.overlap import MODES, as_spans, recorded_step, step_s, waiting_s
from utils.experiments.scaling import all_reduce_seconds, efficiency, scaling_cells, step_seconds
from utils.measured import MARK
from utils.ranks import RankError, run_ranks

CONFIG = GPTConfig(2, 2, 16, 16, 32)


@pytest.fixture(scope="module")
def recorded():
    arguments = (CONFIG, 2, 1e8, 4000)
    return {mode: run_ranks(recorded_step, 2, mode, *arguments) for mode in MODES}


def test_after_sends_every_gradient_when_backward_is_over(recorded):
    for events in recorded["after"]:
        (backward,) = (event for event in events if event.name == "backward")
        messages = [event for event in events if event.name == "all_reduce"]
        assert len(messages) == 29  # parameters of the model
        assert all(message.start_s >= backward.end_s for message in messages)


def test_overlapped_sends_buckets_and_the_first_leaves_during_backward(recorded):
    for events in recorded["overlapped"]:
        (backward,) = (event for event in events if event.name == "backward")
        messages = [event for event in events if event.name == "all_reduce"]
        assert 2 < len(messages) < 29
        assert backward.start_s < min(message.start_s for message in messages) < backward.end_s


def test_the_link_carries_one_message_at_a_time_and_waiting_is_part_of_the_step(recorded):
    for by_rank in recorded.values():
        for events in by_rank:
            messages = [event for event in events if event.name == "all_reduce"]
            for one, following in pairwise(messages):
                assert following.start_s >= one.end_s
            assert 0 < waiting_s(events) < step_s(events)


def test_spans_have_two_lanes_a_rank_in_order(recorded):
    lanes = list(dict.fromkeys(span.lane for span in as_spans(recorded["after"])))
    assert lanes == [f"rank {r} {lane}" for r in (0, 1) for lane in ("compute", "communication")]


def test_an_unknown_mode_is_named():
    with pytest.raises(RankError, match="The mode must be one of"):
        run_ranks(recorded_step, 1, "before", CONFIG, 2, 1e8, 4000)


def test_seconds_are_positive_and_sizes_come_back():
    assert all(seconds > 0 for seconds in run_ranks(step_seconds, 2, CONFIG, 1, 1))
    (times, _) = run_ranks(all_reduce_seconds, 2, [64, 4096], 1)
    assert [size for size, _ in times] == [64, 4096] and all(s > 0 for _, s in times)


def test_efficiency_of_known_times():
    assert efficiency([(1.0, 1.0)] * 3, 2, is_weak=True) == (1.0, 1.0, 1.0)
    assert efficiency([(1.0, 0.5)] * 3, 2, is_weak=False) == (1.0, 1.0, 1.0)
    assert efficiency([(1.0, 1.0), (1.0, 2.0), (1.0, 4.0)], 2, is_weak=True)[1] == 0.5
    cells = scaling_cells([(1.0, 2.0)] * 3, 2, is_weak=True)
    assert all(cell.startswith(MARK) for cell in cells) and "2.00 times" in cells[2]
