"""What lab 09's choice of buffers is judged by: forwards of the simulator with any number of them.

How it works: gathers stand in one stream, layers in another; the gather of a layer waits until the
last user of its buffer has computed. All seconds are multiples of 1/8, so that times are exact and
"as short as possible" is a question of equality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from utils.simulate import COMMUNICATION, COMPUTE, Task, simulate

Result = tuple[float, ...]  # buffers, their bytes, percent less time, percent more throughput


@dataclass(frozen=True)
class Case:
    """Seconds of each layer's gather and forward, and its bytes."""

    name: str
    gather_s: tuple[float, ...]
    compute_s: tuple[float, ...]
    layer_bytes: tuple[int, ...]

    @property
    def num_layers(self) -> int:
        """How many there are."""
        return len(self.gather_s)

    @property
    def right(self) -> Result:
        """The fewest buffers that suffice, and what they are worth."""
        return self.result(self.fewest())

    def fewest(self) -> int:
        """The fewest with which forward is as short as with one for each layer."""
        numbers = range(1, self.num_layers + 1)
        return next(n for n in numbers if self.end_s(n) == self.end_s(self.num_layers))

    def result(self, number: int) -> Result:
        """Everything about so many buffers, beside one."""
        one_s, end_s = self.end_s(1), self.end_s(number)
        return number, self.bytes_of(number), 100 * (1 - end_s / one_s), 100 * (one_s / end_s - 1)

    def bytes_of(self, number: int) -> int:
        """Each buffer as large as the largest of its users."""
        return sum(max(self.layer_bytes[place::number]) for place in range(number))

    def end_s(self, number: int) -> float:
        """When forward ends with so many buffers."""
        tasks = []
        for place, (gather_s, compute_s) in enumerate(
            zip(self.gather_s, self.compute_s, strict=True)
        ):
            after = (f"forward {place - number}",) if place >= number else ()
            tasks.append(Task(f"gather {place}", COMMUNICATION, gather_s, after))
            tasks.append(Task(f"forward {place}", COMPUTE, compute_s, (f"gather {place}",)))
        return simulate(tasks).total_s


CASES = (
    Case("6 equal layers", (1.0,) * 6, (2.0,) * 6, (100,) * 6),
    Case("a long gather in the middle", (1.0, 1.0, 1.0, 6.0, 1.0, 1.0), (2.0,) * 6,
         (100, 100, 100, 600, 100, 100)),
    Case("messages slower than layers", (2.5, 2.0, 3.0, 2.0, 2.5), (1.0, 1.5, 1.0, 1.0, 0.5),
         (250, 200, 300, 200, 250)),
    Case("large layers after small ones", (0.5, 0.5, 0.5, 0.5, 4.0, 4.0, 0.5), (1.5,) * 7,
         (50, 60, 50, 40, 400, 410, 50)),
    Case("gathers that take no time", (0.0,) * 4, (1.5, 2.0, 1.0, 1.5), (80, 90, 80, 70)),
    Case("1 layer", (1.0,), (2.0,), (70,)),
)  # fmt: skip


def _times(time_s: Callable[[Case], float], swap: bool = False) -> Callable[[Case], Result]:
    """Percentages from another time with the best number of buffers."""

    def result(case: Case) -> Result:
        one_s, end_s = case.end_s(1), time_s(case)
        parts = 100 * (1 - end_s / one_s), 100 * (one_s / end_s - 1)
        return (*case.right[:2], *(parts[::-1] if swap else parts))

    return result


def _with_bytes(num_bytes: Callable[[Case, int], float]) -> Callable[[Case], Result]:
    def result(case: Case) -> Result:
        number, _, *gains = case.right
        return (number, num_bytes(case, number), *gains)

    return result


def _best_s(case: Case) -> float:
    return case.end_s(case.num_layers)


def _share_of_one(case: Case) -> Result:
    """Both percentages divided by the time with one buffer."""
    number, num_bytes, less, _ = case.right
    return number, num_bytes, less, less


def _share_of_best(case: Case) -> Result:
    number, num_bytes, _, more = case.right
    return number, num_bytes, more, more


def _in_shares(case: Case) -> Result:
    number, num_bytes, less, more = case.right
    return number, num_bytes, less / 100, more / 100


def _first_without_stall(case: Case) -> Result:
    """Enough buffers that a forward waits for nothing but the first gather, or all of them."""
    wanted_s = case.gather_s[0] + sum(case.compute_s)
    numbers = range(1, case.num_layers + 1)
    return case.result(next((n for n in numbers if case.end_s(n) <= wanted_s), case.num_layers))


WRONG_BASE = (
    "the percentage of the wrong base: less time is a share of the time with one buffer, more "
    "throughput is what is saved beside the time that is left"
)
HIDDEN = "hidden messages are counted: a gather costs only what no layer computes beside"
MISTAKES: tuple[tuple[str, Callable[[Case], Result]], ...] = (
    (WRONG_BASE, _times(_best_s, swap=True)),
    (WRONG_BASE, _share_of_one),
    (WRONG_BASE, _share_of_best),
    ("shares, not percent", _in_shares),
    (HIDDEN, _times(lambda case: sum(case.gather_s) + sum(case.compute_s))),
    (HIDDEN, lambda case: case.result(1)),
    ("nothing is hidden before the first layer: its gather comes first",
     _times(lambda case: max(sum(case.gather_s), sum(case.compute_s)))),
    ("as if no gather took any time: some of them cannot be hidden",
     _times(lambda case: sum(case.compute_s))),
    ("two buffers are not always enough, nor always needed",
     lambda case: case.result(min(2, case.num_layers))),
    ("one buffer for each layer is never slower, but fewer may do",
     lambda case: case.result(case.num_layers)),
    ("one buffer too many", lambda case: case.result(min(case.fewest() + 1, case.num_layers))),
    ("one buffer too few", lambda case: case.result(max(case.fewest() - 1, 1))),
    ("where messages are slower than layers some waiting stays, whatever the buffers: compare with "
     "one for each layer", _first_without_stall),
    ("each buffer needs room for its own users only",
     _with_bytes(lambda case, number: number * max(case.layer_bytes))),
    ("a buffer sized to the average layer is too small for the largest",
     _with_bytes(lambda case, number: number * sum(case.layer_bytes) // case.num_layers)),
    ("all layers have a buffer of their own in these bytes",
     _with_bytes(lambda case, number: sum(case.layer_bytes))),
)  # fmt: skip
