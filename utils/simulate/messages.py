"""The collectives played message by message: what they move is counted, not derived.

How it works: a schedule is a list of steps, a step a list of messages that all leave at the same
moment. A tensor is a number of blocks; each rank holds numbers for some of them. A message carries
the sender's numbers of some blocks, which the receiver keeps or adds to its own. `play` runs a
schedule on real numbers, so a wrong schedule gives wrong sums; `count` gives its `Traffic`.

Blocks: N of them for N ranks, block r ending (reduce-scatter) or starting (all-gather) at rank r;
in an all-to-all block s N + d goes from rank s to rank d.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from utils.simulate.traffic import ALGORITHMS, COLLECTIVES, Traffic


class Message(NamedTuple):
    """Numbers of `blocks` from rank `source` to rank `destination`, added up there if `adds`."""

    source: int
    destination: int
    blocks: tuple[int, ...]
    adds: bool = False


Step = list[Message]
State = list[dict[int, int]]  # for each rank: block -> number


def schedule(collective: str, algorithm: str, num_ranks: int) -> list[Step]:
    """The steps of a collective; empty for one rank. Raises ValueError for an unknown name."""
    if collective not in COLLECTIVES or algorithm not in ALGORITHMS:
        raise ValueError(
            f"There is no {algorithm!r} for {collective!r}; the collectives are "
            f"{', '.join(COLLECTIVES)}, the algorithms {', '.join(ALGORITHMS)}."
        )
    gather = _ring_gather(num_ranks) if algorithm == "ring" else _tree_gather(num_ranks)
    if collective == "all-gather":
        return gather
    if collective == "reduce-scatter":
        return _backwards(gather)
    if collective == "all-reduce":
        return _backwards(gather) + gather
    if collective == "broadcast":
        return _chain(num_ranks) if algorithm == "ring" else _doubling_broadcast(num_ranks)
    return _straight(num_ranks) if algorithm == "ring" else _by_digits(num_ranks)


def play(steps: Sequence[Step], start: State) -> State:
    """What each rank holds after all steps. Raises ValueError for a message without its block."""
    state = [dict(held) for held in start]
    for number, step in enumerate(steps):
        before = [dict(held) for held in state]  # all messages of a step leave at once
        for message in step:
            for block in message.blocks:
                if block not in before[message.source]:
                    raise ValueError(
                        f"In step {number} rank {message.source} sends block {block}, "
                        "which it does not hold."
                    )
                own = state[message.destination].get(block, 0) if message.adds else 0
                state[message.destination][block] = own + before[message.source][block]
    return state


def count(steps: Sequence[Step], block_bytes: float = 1.0) -> Traffic:
    """Steps, bytes on the path and bytes sent by the busiest rank of a schedule."""
    sent: Counter[int] = Counter()
    path_blocks = 0
    for step in steps:
        for message in step:
            sent[message.source] += len(message.blocks)
        path_blocks += max(len(message.blocks) for message in step)
    busiest = max(sent.values(), default=0)
    return Traffic(len(steps), path_blocks * block_bytes, busiest * block_bytes)


def renamed(
    steps: Sequence[Step], ranks: Sequence[int], blocks: Sequence[Sequence[int]]
) -> list[Step]:
    """The schedule among other ranks, with each block standing for several blocks of a tensor."""
    return [
        [
            Message(
                ranks[message.source],
                ranks[message.destination],
                tuple(real for block in message.blocks for real in blocks[block]),
                message.adds,
            )
            for message in step
        ]
        for step in steps
    ]


def at_once(schedules: Sequence[Sequence[Step]]) -> list[Step]:
    """Several schedules of equal length side by side, e.g. one in each node."""
    return [[m for step in steps for m in step] for steps in zip(*schedules, strict=True)]


def _backwards(gather: list[Step]) -> list[Step]:
    """A reduce-scatter is an all-gather run backwards: copies that spread become sums that meet."""
    return [
        [Message(m.destination, m.source, m.blocks, adds=True) for m in step]
        for step in reversed(gather)
    ]


def _ring_gather(ranks: int) -> list[Step]:
    """Each step passes on, to the right, the block that came last."""
    return [
        [Message(rank, (rank + 1) % ranks, ((rank - hop) % ranks,)) for rank in range(ranks)]
        for hop in range(ranks - 1)
    ]


def _tree_gather(ranks: int) -> list[Step]:
    """Each step sends all that is held, twice as far as before; the last one what is missing."""
    steps, distance = [], 1
    while distance < ranks:
        held = range(min(distance, ranks - distance))
        steps.append(
            [
                Message(rank, (rank - distance) % ranks, tuple((rank + i) % ranks for i in held))
                for rank in range(ranks)
            ]
        )
        distance *= 2
    return steps


def _chain(ranks: int) -> list[Step]:
    """Rank r passes block after block on to r + 1."""
    return [
        [Message(r, r + 1, (time - r,)) for r in range(ranks - 1) if 0 <= time - r < ranks]
        for time in range(2 * (ranks - 1))
    ]


def _doubling_broadcast(ranks: int) -> list[Step]:
    """In each step everyone who has the tensor sends all of it to someone who has not."""
    everything, steps, have = tuple(range(ranks)), [], 1
    while have < ranks:
        receivers = range(have, min(2 * have, ranks))
        steps.append([Message(rank - have, rank, everything) for rank in receivers])
        have *= 2
    return steps


def _straight(ranks: int) -> list[Step]:
    """In step k everyone sends to the rank k further on."""
    return [
        [Message(r, (r + k) % ranks, (r * ranks + (r + k) % ranks,)) for r in range(ranks)]
        for k in range(1, ranks)
    ]


def _by_digits(ranks: int) -> list[Step]:
    """A block for the rank j further on makes a hop of 2^k for each binary digit k of j."""
    steps, hop = [], 1
    while hop < ranks:
        step = []
        for rank in range(ranks):
            moving = [j for j in range(ranks) if j & hop]
            sources = [(rank - j % hop) % ranks for j in moving]  # the hops made already
            blocks = (s * ranks + (s + j) % ranks for s, j in zip(sources, moving, strict=True))
            step.append(Message(rank, (rank + hop) % ranks, tuple(blocks)))
        steps.append(step)
        hop *= 2
    return steps
