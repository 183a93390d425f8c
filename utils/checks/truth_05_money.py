"""Lab 05, the money: every choice of machine, technique and micro-batch, priced, and mistakes.

How it works: random tables of small, exact numbers (seconds are multiples of 1/64), so that equal
prices are equal. A mistake is another idea of what fits or of what a step costs; one that gives
every answer of the learner's explains them.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What can be rented: its memory, its price, and its speed (1 where seconds were measured)."""

    name: str
    memory_bytes: int
    usd_per_hour: float
    speed: float


@dataclass(frozen=True)
class Technique:
    """One way to train: bytes in any case and for each sequence, seconds for each of two things."""

    name: str
    fixed_bytes: int
    bytes_per_sequence: int
    seconds_per_sequence: float
    seconds_per_micro_batch: float


Table = tuple[tuple[Machine, ...], tuple[Technique, ...], int]  # the last is the batch size
Choice = tuple[str, str, int] | None
Candidate = tuple[Machine, Technique, int]


def needed_bytes(technique: Technique, micro_batch: int) -> int:
    """Bytes of a step with this micro-batch."""
    return technique.fixed_bytes + micro_batch * technique.bytes_per_sequence


def step_s(candidate: Candidate, batch_size: int) -> float:
    """Seconds for a whole batch; a last, smaller micro-batch starts like the others."""
    machine, technique, micro_batch = candidate
    num_micro_batches = -(-batch_size // micro_batch)
    seconds = num_micro_batches * technique.seconds_per_micro_batch
    seconds += batch_size * technique.seconds_per_sequence
    return seconds / machine.speed


def step_usd(candidate: Candidate, batch_size: int) -> float:
    """Dollars for a whole batch."""
    return step_s(candidate, batch_size) * candidate[0].usd_per_hour / 3600


def candidates(table: Table, room: Callable | None = None) -> list[Candidate]:
    """All that fits; `room(machine, technique)` may think otherwise of the largest micro-batch."""
    machines, techniques, batch_size = table
    room = room or (lambda m, t: (m.memory_bytes - t.fixed_bytes) // t.bytes_per_sequence)
    return [
        (machine, technique, micro_batch)
        for machine in machines
        for technique in techniques
        for micro_batch in range(1, min(batch_size, room(machine, technique)) + 1)
    ]


def cheapest(table: Table, room: Callable | None = None, cost: Callable | None = None) -> Choice:
    """The candidate with the least cost (dollars, unless told otherwise), then the fewest bytes."""
    cost = cost or (lambda candidate: step_usd(candidate, table[2]))
    found = min(
        candidates(table, room),
        key=lambda c: (cost(c), needed_bytes(c[1], c[2])),
        default=None,
    )
    return found and (found[0].name, found[1].name, found[2])


def random_tables(num_tables: int) -> Iterator[Table]:
    """Two or three machines and techniques; sometimes nothing fits, sometimes everything does."""
    draw = random.Random(11)
    for number in range(num_tables):
        memories = [draw.choice((8, 12, 16, 24)) for _ in range(draw.randint(2, 3))]
        machines = tuple(
            Machine(f"machine {k}", memory * GIB, draw.randint(40, 220) / 100, draw.choice((1, 2)))
            for k, memory in enumerate(memories, start=1)
        )
        fixed = draw.randint(2, 9) if number % 9 else 25
        yield machines, _techniques(draw, fixed), draw.choice((6, 10, 16, 24, 30))


def _techniques(draw: random.Random, fixed: int) -> tuple[Technique, ...]:
    """Plain, and two that take fewer bytes and more seconds for each sequence."""
    per_sequence, seconds = draw.randint(1200, 7000), draw.randint(32, 96)
    launch = draw.randint(1, 48)
    table = []
    for name, share, slower in (("plain", 1, 1), ("selective", 0.55, 1.04), ("full", 0.15, 1.3)):
        table.append(
            Technique(
                name=name,
                fixed_bytes=fixed * GIB,
                bytes_per_sequence=round(per_sequence * share) * 2**20,
                seconds_per_sequence=math.ceil(seconds * slower) / 64,
                seconds_per_micro_batch=launch / 64,
            )
        )
    return tuple(table)


def explain(tables: Sequence[Table], choices: Sequence[Choice]) -> str:
    """The mistake that gives all these choices, or nothing."""
    for words, mistaken in MISTAKES.items():
        if all(mistaken(t) == choice for t, choice in zip(tables, choices, strict=True)):
            return words
    if all(choice is not None for choice in choices):
        return "say None when nothing fits"
    return ""


def _by(cost: Callable[[Candidate, int], float]) -> Callable[[Table], Choice]:
    return lambda table: cheapest(table, cost=lambda candidate: cost(candidate, table[2]))


def _without_accumulation(table: Table) -> Choice:
    whole = [c for c in candidates(table) if c[2] == table[2]]
    best = min(whole, key=lambda c: step_usd(c, table[2]), default=None)
    return best and (best[0].name, best[1].name, best[2])


def _fractions(candidate: Candidate, batch_size: int) -> float:
    machine, technique, micro_batch = candidate
    seconds = batch_size / micro_batch * technique.seconds_per_micro_batch
    seconds += batch_size * technique.seconds_per_sequence
    return seconds / machine.speed * machine.usd_per_hour


def _all_plain(table: Table) -> Choice:
    """Everybody is as fast as the first technique."""
    _, techniques, batch_size = table
    first = techniques[0]

    def cost(candidate: Candidate) -> float:
        return step_usd((candidate[0], first, candidate[2]), batch_size)

    return cheapest(table, cost=cost)


MISTAKES: dict[str, Callable[[Table], Choice]] = {
    "the fixed bytes have to fit as well": (
        lambda table: cheapest(table, lambda m, t: m.memory_bytes // t.bytes_per_sequence)
    ),
    "the largest micro-batch is not the aim: dollars are": _by(lambda c, _: -c[2]),
    "a technique that saves bytes takes more seconds for each sequence": _all_plain,
    "the lowest price per hour may buy the slower machine": _by(
        lambda c, batch: (c[0].usd_per_hour, step_usd(c, batch))
    ),
    "the fastest step may be a dear one": _by(step_s),
    "a machine of speed 2 needs half the seconds": _by(
        lambda c, batch: step_usd(c, batch) * c[0].speed
    ),
    "the batch may be accumulated from several micro-batches": _without_accumulation,
    "every micro-batch costs seconds of its own": _by(
        lambda c, batch: c[1].seconds_per_sequence / c[0].speed * c[0].usd_per_hour
    ),
    "there is no fraction of a micro-batch: round their number up": _by(_fractions),
    "saving the most bytes is not the aim: more than what fits buys nothing": _by(
        lambda c, batch: (c[1].bytes_per_sequence, step_usd(c, batch))
    ),
}
