"""Honest time: one thread, warm-up, variants in turn, and "too noisy to tell" when it is.

How it works: the variants of a comparison run one after the other, round after round, so that a
slow moment of the machine hits all of them. Each round gives one ratio per variant; the median
ratio is the answer and its quartiles are the doubt. Time on an accelerator is taken only after the
device has finished. Left out: anything in pass/fail tests; seconds belong in marked output.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


def use_one_thread() -> None:
    """One core is one device here: with two threads on a shared machine a step's time varies 6x."""
    torch.set_num_threads(1)


def synchronise() -> None:
    """Wait for the accelerator, if there is one: its work is only queued when a call returns."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seconds_of(step: Callable[[], object]) -> float:
    """Seconds of one call, the device's work included."""
    synchronise()
    start_s = time.perf_counter()
    step()
    synchronise()
    return time.perf_counter() - start_s


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs of one variant."""

    runs_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The middle run: outliers do not move it."""
        return statistics.median(self.runs_s)

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """A quarter of the runs was faster than the first, a quarter slower than the second."""
        return _quartiles(self.runs_s)


def time_step(step: Callable[[], object], repeats: int = 7, warmup: int = 2) -> Timing:
    """Time `step()` after `warmup` runs that do not count."""
    return compare({"step": step}, repeats, warmup).timings["step"]


@dataclass(frozen=True)
class Comparison:
    """Interleaved timings; ratios are taken round by round."""

    timings: dict[str, Timing]

    def per(self, work: dict[str, float]) -> "Comparison":
        """The same rounds in seconds per unit of work, such as seconds per sequence."""
        return Comparison(
            {
                name: Timing(tuple(run_s / work[name] for run_s in timing.runs_s))
                for name, timing in self.timings.items()
            }
        )

    def ratios(self, variant: str, baseline: str) -> tuple[float, ...]:
        """variant / baseline in each round: below 1 is faster."""
        pairs = zip(self.timings[variant].runs_s, self.timings[baseline].runs_s, strict=True)
        return tuple(mine / base for mine, base in pairs)

    def ratio(self, variant: str, baseline: str) -> float:
        """The median over rounds of variant / baseline."""
        return statistics.median(self.ratios(variant, baseline))

    def verdict(self, variant: str, baseline: str) -> str:
        """"faster", "slower", or "too noisy to tell" when the quartiles straddle 1."""
        low, high = _quartiles(self.ratios(variant, baseline))
        if low <= 1.0 <= high:
            return "too noisy to tell"
        return "faster" if high < 1.0 else "slower"

    def sentence(self, variant: str, baseline: str) -> str:
        """One line: ratio, quartiles, verdict. Print it through `measured`."""
        low, high = _quartiles(self.ratios(variant, baseline))
        ratio, verdict = self.ratio(variant, baseline), self.verdict(variant, baseline)
        return f"{ratio:.2f}x the time (quartiles {low:.2f} to {high:.2f}): {verdict}"


def compare(
    variants: dict[str, Callable[[], object]], repeats: int = 7, warmup: int = 2
) -> Comparison:
    """Time several steps in turn, `repeats` rounds after `warmup` rounds; all keep one thread."""
    if repeats < 3:
        raise ValueError(f"compare needs at least 3 repeats for quartiles, not {repeats}.")
    if not variants:
        raise ValueError("compare needs at least one variant.")
    runs_s: dict[str, list[float]] = {name: [] for name in variants}
    with one_thread():
        for round_number in range(warmup + repeats):
            for name, step in variants.items():
                elapsed_s = seconds_of(step)
                if round_number >= warmup:
                    runs_s[name].append(elapsed_s)
    return Comparison({name: Timing(tuple(values)) for name, values in runs_s.items()})


def matmul_flops_per_s(
    size: int = 1024, dtype: torch.dtype = torch.float32, device: str = "cpu", repeats: int = 9
) -> float:
    """This device's achievable peak: the best of some size x size matrix products."""
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    timing = time_step(lambda: left @ right, repeats)
    return 2 * size**3 / min(timing.runs_s)


def _quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside the block, the earlier number afterwards."""
    earlier = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(earlier)
