"""What the article leaves out, for lesson 11: fused attention, compiling, a better algorithm.

How it works: `attention_rows` and `race` measure here and now, in seconds; `compile_rows` and
`algorithm_rows` show what `make record` measured at full size, for a cold compile takes longer than
a cell may, and so does a fair search for learning rates. In a race, AdamW with torch's learning
rate runs to the end of a short track; the loss it ends with is the target of the others.

Left out: the experiments themselves (attention.py, compiling.py, algorithms.py beside this file).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from matplotlib.axes import Axes

from utils.corpus import Corpus
from utils.experiments.algorithms import (
    ADAMW,
    AS_IT_COMES,
    CPU_TRACK,
    DEFAULT_RATE,
    MUON,
    Contender,
    Curve,
    Track,
)
from utils.experiments.attention import (
    CPU_CONFIG,
    CPU_TOKENS,
    attention_pair,
    step_peak_bytes,
)
from utils.experiments.compiling import steps_to_pay_back
from utils.measured import measured
from utils.plots import bytes_text
from utils.recorded import RecordedRun
from utils.timing import compare

ATTENTION_HEADERS = ("tokens in a sequence", "explicit: peak", "fused: peak", "explicit / fused",
                     "time, explicit / fused")  # fmt: skip
COMPILE_HEADERS = ("device", "model", "as it is", "compiled", "time", "to compile", "pays after")
ALGORITHM_HEADERS = ("device", "optimizer", "trials", "rate", "tokens to the loss", "of seeds",
                     "ms a step", "s to the loss", "tokens saved")  # fmt: skip
RACE_HEADERS = ("optimizer", "rate", "steps", "tokens", "ms a step", "seconds", "fewer tokens")
# What the search of algorithms.py chose on the course's processor (November 2026).
CHOSEN = {AS_IT_COMES: DEFAULT_RATE, ADAMW: 2e-3, MUON: 2e-2}
SHORT_TRACK = replace(CPU_TRACK, num_steps=140)


def attention_rows(context_lengths: Sequence[int] = (128, 256, 512)) -> list[tuple[str, ...]]:
    """Exact peaks of a small GPT's step with both attentions, and the ratio of their times.

    The step has 1,024 tokens however they are cut, so only attention's share of it changes.
    """
    rows = []
    for length in context_lengths:
        pair = attention_pair(CPU_CONFIG, length, CPU_TOKENS)
        explicit, fused = (step_peak_bytes(step) for step in pair.values())
        timed = compare(pair, repeats=5, warmup=1)
        ratio = measured(f"{timed.ratio('explicit', 'fused'):.1f} times")
        peaks = bytes_text(explicit), bytes_text(fused), f"{explicit / fused:.1f} times"
        rows.append((str(length), *peaks, ratio))
    return rows


def compile_rows(runs: Iterable[RecordedRun]) -> Iterator[tuple[str, ...]]:
    """A row under COMPILE_HEADERS for each model of each run, or why it did not compile."""
    for run in runs:
        for row in run.experiments["compile"]:
            eager = f"{1e3 * row['eager_s']:.3g} ms"
            if row["problem"]:
                yield run.device, row["model"], eager, row["problem"], "-", "-", "-"
                continue
            steps = steps_to_pay_back(row)
            yield (
                run.device,
                row["model"],
                eager,
                f"{1e3 * row['compiled_s']:.3g} ms",
                f"{row['ratio']:.2f} ({row['low_ratio']:.2f} to {row['high_ratio']:.2f})",
                f"{row['compile_s']:.0f} s",
                f"{steps:,.0f} steps" if steps else "never, or too noisy to tell",
            )


def algorithm_rows(runs: Iterable[RecordedRun]) -> Iterator[tuple[str, ...]]:
    """A row under ALGORITHM_HEADERS for each optimizer of each run: medians, least and most."""
    for run in runs:
        rows = run.experiments["algorithms"]
        base = tokens_of(rows, AS_IT_COMES)
        for row in rows:
            yield run.device, *_algorithm_cells(row, base)


def tokens_of(rows: Iterable[dict], name: str) -> float | None:
    """Median tokens to the target of an optimizer's row, if it is there and reached it."""
    return next((median(row["tokens"]) for row in rows if row["name"] == name and row["tokens"]),
                None)  # fmt: skip


@dataclass(frozen=True)
class Racer:
    """One optimizer's run on the short track."""

    name: str
    rate: float
    curve: Curve
    steps: float | None  # to the target; None if it was not reached
    step_s: float
    tokens_per_step: int

    @property
    def tokens(self) -> float | None:
        """Read until the target was reached."""
        return self.steps and self.steps * self.tokens_per_step


def race(corpus: Corpus, track: Track = SHORT_TRACK, seed: int = 0) -> dict[str, Racer]:
    """AdamW as it comes sets the target, tuned AdamW and Muon run until they reach it."""
    curves: dict[str, Curve] = {}
    target = -1.0
    for name, rate in CHOSEN.items():
        curves[name] = Contender(name, rate, track, corpus, seed).curve(until=target)
        target = curves[AS_IT_COMES].losses[-1]
    fresh = {name: Contender(name, rate, track, corpus, seed) for name, rate in CHOSEN.items()}
    timed = compare(fresh, repeats=7)
    return {
        name: Racer(name, CHOSEN[name], curve, curve.steps_to(target),
                    timed.timings[name].median_s, track.tokens_per_step)
        for name, curve in curves.items()
    }  # fmt: skip


def race_rows(racers: Mapping[str, Racer]) -> list[tuple[str, ...]]:
    """A row under RACE_HEADERS each; the text differs between Pythons, so all is measured."""
    base = racers[AS_IT_COMES].tokens
    rows = []
    for racer in racers.values():
        step = measured(1e3 * racer.step_s)
        if racer.tokens is None:
            rows.append((racer.name, f"{racer.rate:g}", *[measured("not reached")] * 2, step,
                         measured("-"), measured("-")))  # fmt: skip
            continue
        seconds = measured(racer.steps * racer.step_s)
        cells = measured(f"{racer.steps:.0f}"), measured(f"{racer.tokens:,.0f}"), step, seconds
        fewer = measured(f"{base / racer.tokens:.1f} times") if base else measured("-")
        rows.append((racer.name, f"{racer.rate:g}", *cells, fewer))
    return rows


def draw_race(axes: Axes, racers: Mapping[str, Racer]) -> None:
    """Validation loss over tokens, and the target."""
    for racer in racers.values():
        tokens = [step * racer.tokens_per_step for step in racer.curve.steps]
        axes.plot(tokens, racer.curve.losses, label=racer.name)
    target = racers[AS_IT_COMES].curve.losses[-1]
    axes.axhline(target, color="black", linestyle=":", linewidth=1, marker="", label="_target")
    axes.set(xlabel="tokens", ylabel="validation loss, nats per byte", ylim=(target - 0.1, None))
    axes.legend()


def _algorithm_cells(row: dict, base: float | None) -> Iterator[str]:
    yield row["name"]
    yield f"{row['num_trials']}"
    yield f"{row['learning_rate']:g}"
    seeds = f"{row['num_reached']} of {row['num_seeds']}"
    if not row["tokens"]:
        yield from ("not reached", seeds, f"{1e3 * row['step_s']:.3g}", "-", "-")
        return
    tokens, step_tokens = median(row["tokens"]), row["tokens_per_step"]
    yield f"{tokens:,.0f} ({min(row['tokens']):,.0f} to {max(row['tokens']):,.0f})"
    yield seeds
    yield f"{1e3 * row['step_s']:.3g}"
    yield f"{tokens / step_tokens * row['step_s']:.2f}"
    yield f"{base / tokens:.2f} times" if base else "-"
