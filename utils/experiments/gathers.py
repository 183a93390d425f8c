"""One step of FSDP on a slow link, recorded: gathers and reductions against compute, per rank.

How it works: every rank trains the same small GPT under our `FullySharded` and notes when each
layer computes, when each message travels and when it only waits. Of a few steps the quickest is
taken, which other programs have disturbed least. Three ways:

    "every message awaited"     as lesson 07's ZeRO-3
    "reductions overlapped"     gradients travel during backward, weights are gathered when needed
    "gathers one layer ahead"   the next layer's weights travel while this one computes

Left out: the optimizer; it works the same in all.
"""

from __future__ import annotations

import torch

from utils.config import GPTConfig
from utils.layer_events import WAITING, LayerWatch, RecordedLane
from utils.model import build_gpt, next_token_loss
from utils.ranks import Event, EventLog, run_ranks
from utils.techniques.fsdp import FullySharded
from utils.techniques.sharding import Sharding
from utils.timeline_plot import Span

# Name -> (does the sender wait for every message, how many units ahead are gathered).
WAYS = {
    "every message awaited": (True, 0),
    "reductions overlapped": (False, 0),
    "gathers one layer ahead": (False, 1),
}
ROOT = "R"  # how a message of the root is labelled


def quickest_step(
    way: str, config: GPTConfig, batch_size: int, bytes_per_s: float,
    reshard_after_forward: bool = True, world_size: int = 2, num_steps: int = 7,
) -> list[list[Event]]:  # fmt: skip
    """Each rank's events in the quickest of `num_steps` steps after two that do not count."""
    arguments = (way, config, batch_size, bytes_per_s, reshard_after_forward, num_steps)
    by_rank = run_ranks(recorded_steps, world_size, *arguments)
    by_step = [list(ranks) for ranks in zip(*by_rank, strict=True)]
    return min(by_step, key=lambda ranks: max(map(step_s, ranks)))


def recorded_steps(
    rank: int, world_size: int, way: str, config: GPTConfig, batch_size: int, bytes_per_s: float,
    reshard_after_forward: bool = True, num_steps: int = 1, num_warm: int = 2,
) -> list[list[Event]]:  # fmt: skip
    """The events of each of `num_steps` steps after `num_warm` others; a worker for `run_ranks`."""
    if way not in WAYS:
        raise ValueError(f"The way must be one of {tuple(WAYS)}, not {way!r}.")
    waits_at_once, prefetch = WAYS[way]
    model, log = build_gpt(config), EventLog(rank)
    lane = RecordedLane(bytes_per_s, log, waits_at_once)
    sharding = Sharding(rank, world_size)
    fsdp = FullySharded(model, model.blocks, sharding, lane, reshard_after_forward, prefetch)
    watch = LayerWatch(model.blocks, log)
    tokens_BT = torch.randint(config.vocab_size, (batch_size, config.context_length))
    steps = []
    for _ in range(num_warm + num_steps):
        watch.log = log = EventLog(rank)
        lane.record(log)
        next_token_loss(model, tokens_BT, tokens_BT).backward()
        steps.append(log)
        for shard_S in fsdp.parameters():
            shard_S.grad = None
    lane.close()
    return [each.events() for each in steps[num_warm:]]


def as_spans(by_rank: list[list[Event]]) -> list[Span]:
    """The events of all ranks as bars with the layer's number, two lanes a rank, waits last."""
    return [
        Span(f"rank {event.rank} {name}", _kind(event), start_s, end_s, label)
        for events in by_rank
        for lane, name in (("compute", "computes"), ("communication", "sends"))
        for event in sorted(events, key=lambda event: event.name == WAITING)
        if event.lane == lane
        for start_s, end_s, label in _parts(event, [e for e in events if e.name == WAITING])
    ]


def _parts(event: Event, waits: list[Event]) -> list[tuple[float, float, str]]:
    """The event without the waits inside of it; its longest part has the label."""
    if event.lane != "compute" or event.name == WAITING:
        return [(event.start_s, event.end_s, _label(event))]
    overlapping = (w for w in waits if event.start_s < w.end_s and w.start_s < event.end_s)
    inside = sorted(overlapping, key=lambda wait: wait.start_s)
    starts = [event.start_s, *(wait.end_s for wait in inside)]
    ends = [*(wait.start_s for wait in inside), event.end_s]
    parts = [(a, b) for a, b in zip(starts, ends, strict=True) if b > a]
    longest = max(parts, key=lambda part: part[1] - part[0], default=None)
    return [(*part, _label(event) if part == longest else "") for part in parts]


def waiting_s(events: list[Event]) -> float:
    """Seconds in which this rank computed nothing: the communication that nothing hides."""
    return sum(event.end_s - event.start_s for event in events if event.name == WAITING)


def step_s(events: list[Event]) -> float:
    """Seconds from the first event's start to the last one's end."""
    return max(event.end_s for event in events) - min(event.start_s for event in events)


def _kind(event: Event) -> str:
    return event.name.split()[0]


def _label(event: Event) -> str:
    """The number of the layer, or of the layer whose weights or gradients travel."""
    if event.name == WAITING:
        return ""
    name = event.name.split()[-1]
    return ROOT if name == "root" else name.removeprefix("blocks.")
