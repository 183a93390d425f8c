"""What layers and messages leave in a log: order and nesting, not a word on how long it took."""

from itertools import pairwise

import pytest
import torch

from utils.config import GPTConfig
from utils.experiments.gathers import (
    WAYS,
    as_spans,
    quickest_step,
    recorded_steps,
    step_s,
    waiting_s,
)
from utils.layer_events import COMPUTE, WAITING, LayerWatch, RecordedLane
from utils.model import build_gpt, next_token_loss
from utils.ranks import Event, EventLog, RankError, run_ranks

CONFIG = GPTConfig(3, 2, 16, 16, 32)
BLOCKS = ["blocks.0", "blocks.1", "blocks.2"]


@pytest.fixture(scope="module")
def recorded():
    return {way: quickest_step(way, CONFIG, 2, 1e7, num_steps=2) for way in WAYS}


def named(events, start):
    return [event for event in events if event.name.startswith(start)]


def test_layers_compute_once_each_way_in_order_and_never_two_at_a_time():
    log, model = EventLog(), build_gpt(CONFIG)
    LayerWatch(model.blocks, log)
    tokens_BT = torch.zeros(2, 16, dtype=torch.long)
    with log.span("backward pass"):
        next_token_loss(model, tokens_BT, tokens_BT).backward()
    events = [event for event in log.events() if event.name != "backward pass"]
    order = [("forward", 0, 1, 2), ("backward", 2, 1, 0)]
    assert [event.name for event in events] == [f"{way} {n}" for way, *ns in order for n in ns]
    assert all(one.end_s <= following.start_s for one, following in pairwise(events))
    assert {event.lane for event in events} == {COMPUTE}


def test_weights_get_their_gradients_inside_of_their_layers_backward():
    log, model, seen = EventLog(), build_gpt(CONFIG), {}
    LayerWatch(model.blocks, log)
    for number, block in enumerate(model.blocks):
        for parameter in block.parameters():
            hook = lambda _, n=number: seen.setdefault(n, []).append(log.now_s())  # noqa: E731
            parameter.register_post_accumulate_grad_hook(hook)
    tokens_BT = torch.zeros(2, 16, dtype=torch.long)
    next_token_loss(model, tokens_BT, tokens_BT).backward()
    for event in named(log.events(), "backward"):
        times_s = seen[int(event.name.split()[1])]
        assert len(times_s) == 12
        assert all(event.start_s <= time_s <= event.end_s for time_s in times_s)


def test_a_second_step_can_be_noted_elsewhere():
    first, second, model = EventLog(), EventLog(), build_gpt(CONFIG)
    watch = LayerWatch(model.blocks, first)
    tokens_BT = torch.zeros(2, 16, dtype=torch.long)
    next_token_loss(model, tokens_BT, tokens_BT).backward()
    watch.log = second
    next_token_loss(model, tokens_BT, tokens_BT).backward()
    assert len(first.events()) == len(second.events()) == 6


def test_a_lane_notes_messages_and_waits_and_raises_what_a_message_raised():
    log = EventLog()
    lane = RecordedLane(1e6, log)
    pending = lane.issue(lambda: None, 20_000, "gather root")
    pending.wait()
    pending.wait()  # it is there: no second wait
    broken = lane.issue(lambda: 1 / 0, 0, "reduce root")
    with pytest.raises(ZeroDivisionError):
        broken.wait()
    lane.close()
    assert len(named(log.events(), "gather")) == len(named(log.events(), "reduce")) == 1
    assert 1 <= len(named(log.events(), WAITING)) <= 2
    assert named(log.events(), "gather")[0].end_s - named(log.events(), "gather")[0].start_s >= 0.02


def test_waiting_at_once_leaves_nothing_under_way():
    lane = RecordedLane(1e6, EventLog(), waits_at_once=True)
    done = []
    lane.issue(lambda: done.append(1), 10_000, "gather root")
    assert done == [1]
    lane.close()


def test_every_way_sends_the_same_messages(recorded):
    gathers = sorted(["gather root", *[f"gather {name}" for name in BLOCKS * 2]])
    reduces = sorted(["reduce root", *[f"reduce {name}" for name in BLOCKS]])
    for by_rank in recorded.values():
        for events in by_rank:
            assert sorted(event.name for event in named(events, "gather")) == gathers
            assert sorted(event.name for event in named(events, "reduce")) == reduces


def test_a_gather_starts_when_needed_or_ends_before_it_is(recorded):
    def order(way, number):
        (events, _) = recorded[way]
        names = [event.name for event in sorted(events, key=lambda event: event.start_s)]
        return names.index(f"gather blocks.{number}"), names.index(f"forward {number - 1}")

    for number in (1, 2):
        for way in ("every message awaited", "reductions overlapped"):
            gather, before = order(way, number)
            assert gather > before
        (events, _) = recorded["gathers one layer ahead"]
        gather = named(events, f"gather blocks.{number}")[0]
        (own,) = named(events, f"forward {number}")
        assert gather.end_s <= own.start_s


def test_waits_are_part_of_the_step(recorded):
    for by_rank in recorded.values():
        for events in by_rank:
            assert 0 < waiting_s(events) < step_s(events)


def test_bars_have_two_lanes_a_rank_waits_on_top_and_the_layers_numbers(recorded):
    spans = as_spans(recorded["every message awaited"])
    lanes = list(dict.fromkeys(span.lane for span in spans))
    assert lanes == [f"rank {rank} {what}" for rank in (0, 1) for what in ("computes", "sends")]
    first = [span for span in spans if span.lane == lanes[0]]
    kinds = [span.kind for span in first]
    assert kinds.index("waiting") == sum(kind != "waiting" for kind in kinds)
    assert {span.label for span in spans if span.kind == "gather"} == {"R", "0", "1", "2"}
    assert {span.label for span in spans if span.kind == "waiting"} == {""}


def test_a_bar_of_computing_is_cut_where_it_waits_and_its_longest_part_has_the_number():
    events = [
        Event(0, COMPUTE, "backward blocks.3", 0.0, 10.0),
        Event(0, COMPUTE, WAITING, 7.0, 9.0),
        Event(0, COMPUTE, WAITING, 1.0, 2.0),
    ]
    bars = [(span.kind, span.start_s, span.end_s, span.label) for span in as_spans([events])]
    assert bars == [
        ("backward", 0.0, 1.0, ""), ("backward", 2.0, 7.0, "3"), ("backward", 9.0, 10.0, ""),
        ("waiting", 7.0, 9.0, ""), ("waiting", 1.0, 2.0, ""),
    ]  # fmt: skip


def test_weights_that_stay_are_gathered_once():
    arguments = ("gathers one layer ahead", CONFIG, 2, 1e7, False)
    for events in quickest_step(*arguments, num_steps=1):
        assert len(named(events, "gather")) == 4


def test_the_quickest_step_is_that_of_the_slowest_rank(monkeypatch):
    def steps(*seconds):
        return [[Event(0, COMPUTE, "forward 0", 0.0, each)] for each in seconds]

    by_rank = [steps(3.0, 1.0, 2.0), steps(1.0, 4.0, 2.5)]
    monkeypatch.setattr("utils.experiments.gathers.run_ranks", lambda *_: by_rank)
    assert [step_s(events) for events in quickest_step("any", CONFIG, 2, 1e7)] == [2.0, 2.5]


def test_an_unknown_way_is_named():
    with pytest.raises(RankError, match="The way must be one of"):
        run_ranks(recorded_steps, 1, "backwards", CONFIG, 2, 1e7)
