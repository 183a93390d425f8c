"""What lab 06's buckets are judged by: the simulator's timeline, and the best end that exists.

How it works: gradients are finished one after the other; a bucket's message leaves when its last
gradient is there and the link is free. `end_s` plays that on `utils.simulate`'s two streams.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from utils.config import PRESETS, GPTConfig
from utils.simulate import COMMUNICATION, COMPUTE, Task, gpt_layers, simulate

Seconds = Callable[[int], float]


@dataclass(frozen=True)
class Link:
    """Seconds of a message: a latency, then so many bytes a second."""

    latency_s: float
    bytes_per_s: float

    def __call__(self, num_bytes: int) -> float:
        """Seconds of a message of so many bytes."""
        return self.latency_s + num_bytes / self.bytes_per_s


@dataclass(frozen=True)
class Case:
    """When each gradient is finished, its bytes, and what a message costs."""

    name: str
    ready_s: tuple[float, ...]
    num_bytes: tuple[int, ...]
    link: Link

    @cached_property
    def best(self) -> list[int]:
        """Buckets whose last message arrives first."""
        return best_counts(self.ready_s, self.num_bytes, self.link)

    def end_s(self, counts: Sequence[int]) -> float:
        """When the last message arrives with these buckets."""
        return end_s(self.ready_s, self.num_bytes, self.link, counts)


def end_s(
    ready_s: Sequence[float], num_bytes: Sequence[int], message_s: Seconds, counts: Sequence[int]
) -> float:
    """When the last message arrives; bucket k holds the next counts[k] gradients."""
    tasks, before_s, first = [], 0.0, 0
    for place, at_s in enumerate(ready_s):
        tasks.append(Task(f"gradient {place}", COMPUTE, at_s - before_s))
        before_s = at_s
    for number, count in enumerate(counts):
        last = first + count - 1
        seconds = message_s(sum(num_bytes[first : last + 1]))
        tasks.append(Task(f"bucket {number}", COMMUNICATION, seconds, (f"gradient {last}",)))
        first += count
    return simulate(tasks).total_s


def best_counts(
    ready_s: Sequence[float], num_bytes: Sequence[int], message_s: Seconds
) -> list[int]:
    """The best buckets: the best end of the first j gradients follows from all shorter ones."""
    before = [0, *itertools.accumulate(num_bytes)]
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for j, at_s in enumerate(ready_s, start=1):
        tried = [
            (max(best[i][0], at_s) + message_s(before[j] - before[i]), [*best[i][1], j - i])
            for i in range(j)
        ]
        best.append(min(tried))
    return best[-1][1]


def greedy_counts(ready_s: Sequence[float], num_bytes: Sequence[int], link: Seconds) -> list[int]:
    """Whenever the link is free, all that is finished goes off."""
    counts, free_s, first = [], 0.0, 0
    while first < len(ready_s):
        free_s = max(free_s, ready_s[first])
        count = sum(at_s <= free_s for at_s in ready_s[first:])
        free_s += link(sum(num_bytes[first : first + count]))
        counts.append(count)
        first += count
    return counts


def never_busy_counts(
    ready_s: Sequence[float], num_bytes: Sequence[int], link: Seconds
) -> list[int]:
    """As if a message never waited for the one before it."""
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for j, at_s in enumerate(ready_s, start=1):
        best.append(
            min(
                (max(best[i][0], at_s + link(sum(num_bytes[i:j]))), [*best[i][1], j - i])
                for i in range(j)
            )
        )
    return best[-1][1]


def equal_counts(case: Case) -> list[int]:
    """The best of all buckets with equally many gradients."""
    total = len(case.ready_s)
    tried = []
    for size in range(1, total + 1):
        counts = [size] * (total // size) + [total % size] * (total % size > 0)
        tried.append((case.end_s(counts), counts))
    return min(tried)[1]


def gpt_gradients(
    config: GPTConfig, batch_size: int, flops_per_s: float, value_bytes: int = 4
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """(ready_s, num_bytes) of each gradient in the order of backward, which starts at 0."""
    at_s, ready_s, num_bytes = 0.0, [], []
    for layer in reversed(gpt_layers(config, batch_size, flops_per_s)):
        at_s += layer.backward_s
        for size in reversed(layer.tensor_sizes):
            ready_s.append(at_s)
            num_bytes.append(value_bytes * size)
    return tuple(ready_s), tuple(num_bytes)


def _ms(*values: float) -> tuple[float, ...]:
    return tuple(value / 1e3 for value in values)


KB = 1000
CASES = (
    Case("four gradients that are finished together", _ms(5, 5, 5, 5), (400 * KB,) * 4,
         Link(1e-3, 1e9)),
    Case("a link without latency", _ms(1, 2, 4, 7, 9), (1000 * KB, 500 * KB, 3000 * KB, 200 * KB,
         800 * KB), Link(0.0, 1e9)),
    Case("eight equal gradients", _ms(*range(1, 9)), (1000 * KB,) * 8, Link(0.8e-3, 2e9)),
    Case("a busy link", _ms(1, 1.2, 1.4, 3, 3.5, 4, 6, 6.1, 6.2),
         (2000 * KB, 900 * KB, 100 * KB, 2500 * KB, 700 * KB, 60 * KB, 50 * KB, 900 * KB, 40 * KB),
         Link(0.4e-3, 1.5e9)),
    Case("a large first gradient and many small ones", _ms(1, 5, 5.5, 6, 6.5, 7, 7.5, 8),
         (9000 * KB, *(100 * KB,) * 7), Link(0.6e-3, 3e9)),
    Case("GPT-2 with 124 million parameters", *gpt_gradients(PRESETS["gpt2-124m"], 4, 4e14),
         Link(0.3e-3, 50e9)),
)  # fmt: skip
