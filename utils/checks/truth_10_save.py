"""How often to save on a machine that may be taken away, and when spot pays (lab 10).

How it works: interruptions come at random, on average once in `mean_hours` of rented time, and
may come at any moment, also while saving or restarting. To get from one checkpoint to the next,
useful seconds t and a save c must pass without one; each failed try costs what it lasted, and then
a restart r, which may fail as well. The expected rented seconds of all that are
M e^(r/M) (e^((t + c)/M) - 1), and M is `mean_hours` in seconds.
Source: Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps" (2006);
Young (1974) for sqrt(2 c M). `simulated_overhead` draws interruptions instead of trusting it.

Left out: waiting for a machine, which costs nothing but time; data that cannot be read again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

Result = tuple[float, float, float]  # useful seconds between saves, overhead, percent


@dataclass(frozen=True)
class Spot:
    """A machine that may be taken away."""

    name: str
    mean_hours: float  # of rented time between interruptions
    save_s: float
    restart_s: float

    @property
    def mean_s(self) -> float:
        """The same in seconds."""
        return 3600 * self.mean_hours


CASES = (
    Spot("a restless one", 1, 30, 300),
    Spot("a calm one", 24, 30, 120),
    Spot("slow saves", 2, 600, 900),
    Spot("saves that cost nearly nothing", 6, 1, 60),
    Spot("taken away every few minutes", 0.1, 120, 60),
)


def overhead(spot: Spot, useful_s: float) -> float:
    """Expected rented seconds for each useful one."""
    mean_s = spot.mean_s
    if max(spot.restart_s, useful_s + spot.save_s) > 700 * mean_s:
        return math.inf  # e^700 is about the largest number there is
    tries = math.exp(spot.restart_s / mean_s) * math.expm1((useful_s + spot.save_s) / mean_s)
    return mean_s * tries / useful_s


def best_interval_s(spot: Spot) -> float:
    """Where `overhead` is least: (1 - t/M) e^((t + c)/M) = 1, found by halving."""
    low, high = 0.0, math.nextafter(1.0, 0.0)
    target = -spot.save_s / spot.mean_s
    for _ in range(200):
        middle = (low + high) / 2
        # The logarithm of both sides, so that a small t/M keeps its digits.
        if math.log1p(-middle) + middle > target:
            low = middle
        else:
            high = middle
    return spot.mean_s * (low + high) / 2


def result(spot: Spot, useful_s: float, over: Callable[[Spot, float], float] = overhead) -> Result:
    """All three numbers for an interval."""
    paid = over(spot, useful_s)
    return useful_s, paid, 100 * (1 - 1 / paid)


def right(spot: Spot) -> Result:
    """The best interval and what follows."""
    return result(spot, best_interval_s(spot))


def simulated_overhead(spot: Spot, useful_s: float, num_saves: int, seed: int = 0) -> float:
    """Rented seconds for each useful one, with interruptions drawn at random."""
    draw = random.Random(seed)
    rented_s = 0.0
    for _ in range(num_saves):
        need_s = useful_s + spot.save_s
        while (left_s := draw.expovariate(1 / spot.mean_s)) < need_s:
            rented_s += left_s + _restart_s(spot, draw)
        rented_s += need_s
    return rented_s / (num_saves * useful_s)


def _restart_s(spot: Spot, draw: random.Random) -> float:
    spent_s = 0.0
    while (left_s := draw.expovariate(1 / spot.mean_s)) < spot.restart_s:
        spent_s += left_s
    return spent_s + spot.restart_s


def young_s(spot: Spot) -> float:
    """The first guess."""
    return math.sqrt(2 * spot.save_s * spot.mean_s)


def _no_restart(spot: Spot, useful_s: float) -> float:
    return overhead(spot, useful_s) / math.exp(spot.restart_s / spot.mean_s)


def _calm_restart(spot: Spot, useful_s: float) -> float:
    """As if nobody were interrupted while restarting."""
    mean_s = spot.mean_s
    return (mean_s + spot.restart_s) * math.expm1((useful_s + spot.save_s) / mean_s) / useful_s


def _calm_save(spot: Spot, useful_s: float) -> float:
    """As if nobody were interrupted while saving."""
    tries = spot.mean_s * math.exp(spot.restart_s / spot.mean_s)
    return (tries * math.expm1(useful_s / spot.mean_s) + spot.save_s) / useful_s


def _linear(spot: Spot, useful_s: float) -> float:
    """Half an interval is lost each time, and nothing is lost twice."""
    per_loss = spot.restart_s + (useful_s + spot.save_s) / 2
    return 1 + spot.save_s / useful_s + per_loss / spot.mean_s


def _wrong_share(spot: Spot) -> Result:
    useful_s, paid, _ = right(spot)
    return useful_s, paid, 100 * (paid - 1)


def _share(spot: Spot) -> Result:
    useful_s, paid, percent = right(spot)
    return useful_s, paid, percent / 100


def _kept_price(spot: Spot) -> Result:
    useful_s, paid, _ = right(spot)
    return useful_s, paid, 100 / paid


def _upside_down(spot: Spot) -> Result:
    useful_s, paid, percent = right(spot)
    return useful_s, 1 / paid, percent


def _with_save(spot: Spot) -> Result:
    useful_s, *rest = right(spot)
    return (useful_s + spot.save_s, *rest)


def _in_hours(spot: Spot) -> Result:
    useful_s, *rest = right(spot)
    return (useful_s / 3600, *rest)


def _other_mean(spot: Spot, mean_hours: float) -> Result:
    return right(Spot(spot.name, mean_hours, spot.save_s, spot.restart_s))


MISTAKES: tuple[tuple[str, Callable[[Spot], Result]], ...] = (
    ("sqrt(2 c M) is a good first guess, but the exact optimum is asked for",
     lambda spot: result(spot, young_s(spot))),
    ("half an interval is lost on average only if tries never fail twice: the expectation is exact",
     lambda spot: result(spot, young_s(spot), _linear)),
    ("sqrt(c M) forgets a 2", lambda spot: result(spot, math.sqrt(spot.save_s * spot.mean_s))),
    ("saving once in the mean time between interruptions is too rare",
     lambda spot: result(spot, spot.mean_s)),
    ("the restart is forgotten in the price",
     lambda spot: result(spot, best_interval_s(spot), _no_restart)),
    ("an interruption may come while restarting, too",
     lambda spot: result(spot, best_interval_s(spot), _calm_restart)),
    ("an interruption may come while saving, too",
     lambda spot: result(spot, best_interval_s(spot), _calm_save)),
    ("the discount of the wrong base: percent of the price that is never taken away", _wrong_share),
    ("percent, not a share", _share),
    ("this is the price that may be left, not the discount", _kept_price),
    ("rented for useful, not useful for rented", _upside_down),
    ("the interval is useful time: the save comes on top", _with_save),
    ("the interval is asked for in seconds", _in_hours),
    ("mean_hours are hours", lambda spot: _other_mean(spot, spot.mean_hours / 3600)),
    ("mean_hours are hours", lambda spot: _other_mean(spot, spot.mean_hours / 60)),
)  # fmt: skip
