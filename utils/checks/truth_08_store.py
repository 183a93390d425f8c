"""Where lab 08's layers get their weights from: gathers over ranks, a log, lanes that are late.

How it works: a `Store` keeps a rank's shard of each layer and offers a learner's hooks `gather`,
`start_gather` and `free`, which it notes with the layers that are whole at that moment. A layer
tells it when it computes (`computes`); if its weights are not there, that is noted and they are
gathered, so that the rank lives on and the judge can say more than "it crashed".
`LateLane` delivers nothing before somebody waits for it. Before each message the ranks tell each
other what they are about to send: where they differ, all say so, instead of waiting for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from utils.checks.helpers import NotYet
from utils.ranks.collectives import all_gather
from utils.techniques.flat import split_into_units
from utils.techniques.flat_shard import FlatShard
from utils.techniques.lane import InlineLane, Lane, Pending
from utils.techniques.sharding import Sharding

GATHER, WAIT, FREE, FORWARD, BACKWARD = "gather", "wait", "free", "forward", "backward"
TURN, END = "between forward and backward", "end"
MISSING = "missing"  # a layer computes without its weights


class Entry(NamedTuple):
    """What happened, to which layer, and which layers were whole or under way right after it."""

    what: str
    layer: int
    whole: tuple[int, ...]


@dataclass
class _Message:
    lane: LateLane
    collective: Callable[[], Any]
    name: str
    is_done: bool = False

    def wait(self) -> None:
        """Let it arrive, after all that were issued before it."""
        self.lane.deliver(self)


class LateLane:
    """Carries out in the order of issue, and only when somebody waits."""

    def __init__(self) -> None:
        self._queue: list[_Message] = []

    def issue(self, collective: Callable[[], Any], num_bytes: float, name: str) -> Pending:
        """Nothing happens yet."""
        self._queue.append(_Message(self, collective, name))
        return self._queue[-1]

    def deliver(self, last: _Message) -> None:
        """All messages up to this one."""
        while not last.is_done:
            message = self._queue.pop(0)
            tell(message.name)
            message.collective()
            message.is_done = True

    def close(self) -> None:
        """What nobody has waited for is never sent, on any rank."""


def tell(name: str) -> None:
    """Compare with all other ranks what is sent next; raises NotYet on all if they differ."""
    text = name.encode()[:64].ljust(64)
    mine = torch.tensor(list(text), dtype=torch.uint8)
    told = torch.empty(64 * torch.distributed.get_world_size(), dtype=torch.uint8)
    all_gather(told, mine)
    names = [bytes(each.tolist()).decode().strip() for each in told.view(-1, 64)]
    other = next((rank for rank, each in enumerate(names) if each != names[0]), None)
    if other is not None:
        likely = "the order of messages differs between ranks: they would wait for ever"
        does = [text or "has finished" for text in (names[0], names[other])]
        raise NotYet(f"Rank 0: {does[0]}, while rank {other}: {does[1]}", likely=likely)


class _Waits:
    """What `start_gather` returns: one can wait for it."""

    def __init__(self, store: Store, layer: int) -> None:
        self._store, self._layer = store, layer

    def wait(self) -> None:
        """Return when the layer is whole."""
        self._store.arrive(self._layer)
        self._store.note(WAIT, self._layer)


class Store:
    """The shards of `layers` on this rank; `gather(k)`, `start_gather(k)`, `free(k)`."""

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], rank: int, world_size: int,
        lane: Lane | None = None,
    ) -> None:  # fmt: skip
        self.lane: Lane = lane or InlineLane()
        units = split_into_units(model, layers, world_size)
        sharding = Sharding(rank, world_size)
        self.shards = [FlatShard(u, sharding, self.lane) for u in units if u.module is not model]
        self.entries: list[Entry] = []
        self._waiting: set[int] = set()  # layers under way

    @property
    def num_layers(self) -> int:
        """How many there are."""
        return len(self.shards)

    @property
    def total_bytes(self) -> int:
        """All layers, whole."""
        return sum(shard.whole_bytes for shard in self.shards)

    @property
    def most_bytes(self) -> int:
        """The most bytes of whole weights at the same time."""
        sizes = [shard.whole_bytes for shard in self.shards]
        return max((sum(sizes[k] for k in entry.whole) for entry in self.entries), default=0)

    def gather(self, layer: int) -> None:
        """Make a layer whole, and wait until it is; does nothing if it is whole."""
        self.note(GATHER, layer, self._start)
        self.arrive(layer)

    def start_gather(self, layer: int) -> Pending:
        """Begin to make a layer whole; the result's `wait()` returns when it is."""
        self.note(GATHER, layer, self._start)
        return _Waits(self, layer)

    def free(self, layer: int) -> None:
        """Give the whole layer's memory back; does nothing if it is not whole."""
        self._waiting.discard(layer)
        self.shards[layer].free()
        self.note(FREE, layer)

    def computes(self, what: str, layer: int) -> None:
        """A layer is about to read its weights."""
        self.note(what, layer)
        if layer in self._waiting or not self.shards[layer].is_whole:
            self.note(MISSING, layer)
            self._start(layer)
            self.arrive(layer)

    def arrive(self, layer: int) -> None:
        """Wait for a gather that is under way."""
        self._waiting.discard(layer)
        self.shards[layer].finish_gather()

    def note(self, what: str, layer: int = -1, act: Callable[[int], None] | None = None) -> None:
        """Act, and add an entry."""
        if act is not None:
            act(layer)
        whole = tuple(k for k, shard in enumerate(self.shards) if shard.is_whole)
        self.entries.append(Entry(what, layer, whole))

    def _start(self, layer: int) -> None:
        if not self.shards[layer].is_whole:
            self._waiting.add(layer)
            self.shards[layer].start_gather()
