"""The ladder in words: its table, what each rung changed, what was predicted, recorded ladders.

How it works: bytes and FLOPs are computed and stand plainly; seconds, tokens per second, dollars
and losses are measured and stand between the marks of `utils.measured`. Rungs are compared with the
one below by device-seconds per token, which is what the rent pays for: round by round, with "too
noisy to tell" where the quartiles straddle 1.

Left out: the climb itself (`utils.experiments.ladder`), the figure (`utils.ladder_plots`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from utils.config import GPTConfig
from utils.experiments.ladder import CONFIG, RUNGS, climb
from utils.experiments.ladder_results import RungResult, per_token, result_of
from utils.experiments.ladder_rungs import changed_things
from utils.ladder_best import cheapest, lowest, names_of
from utils.measured import measured, table
from utils.planning.recipe_bytes import recipe_bytes
from utils.planning.this_machine import MachineTimes, calibrate
from utils.plot_axes import usd_text
from utils.recorded import RecordedRun

LADDER_HEADERS = (
    "rung", "changed", "peak, MB", "held, MB", "FLOPs per token", "updates", "step",
    "tokens per s", "$ per 1e9 tokens", "loss",
)  # fmt: skip
RECORDED_HEADERS = (
    "device", "rung", "peak, MB", "ms a step", "tokens per s", "$ per 1e9 tokens", "loss",
)  # fmt: skip
PREDICTED_HEADERS = ("rung", "peak, predicted", "counted", "error", "step, predicted",
                     "measured", "error")  # fmt: skip
EXPERIMENT = "ladder"


def print_ladder(
    results: Sequence[RungResult], usd_per_device_hour: float,
    caption: str = "The ladder: one change a rung",
) -> None:  # fmt: skip
    """Show the table, then in words what its columns are, and why a rung did not run."""
    table(LADDER_HEADERS, ladder_rows(results, usd_per_device_hour), caption)
    print(
        "Bytes are those of the fullest rank; FLOPs are in units of the first rung's; the loss, in "
        "nats a byte, is\nthat of the weights in fp32 on held-out text, after the same tokens for "
        "all: ",
        measured(max((each.num_tokens for each in results), default=0)),
        f".\nA core costs ${usd_per_device_hour:g} an hour, and each rank has one.",
        sep="",
    )
    for each in results:
        if each.problem:
            print(f"{each.rung.name}: {each.problem}.")


def ladder_rows(
    results: Sequence[RungResult], usd_per_device_hour: float
) -> list[list[str]]:
    """A row under LADDER_HEADERS for each rung; what did not run has dashes."""
    changed = ["", *(", ".join(each) for each in _changes(results))]
    return [
        [each.rung.name, what, *_cells(each, results[0], usd_per_device_hour)]
        for each, what in zip(results, changed, strict=True)
    ]


def step_sentences(results: Sequence[RungResult]) -> list[str]:
    """A sentence for each rung above another: what it changed, saved, and took in return."""
    ran = [each for each in results if each.timing]
    times = per_token(ran)
    sentences = []
    for below, rung in pairwise(ran):
        bytes_change = rung.peak_bytes / below.peak_bytes - 1
        flops_change = rung.flops_per_token / below.flops_per_token - 1
        time = measured(times.sentence(rung.rung.name, below.rung.name))
        loss = measured(f"{rung.loss - below.loss:+.3f}")
        sentences.append(
            f"{rung.rung.name}: peak {bytes_change:+.1%}, FLOPs {flops_change:+.1%}; device time a "
            f"token {time}; loss {loss}"
        )
    return sentences


def slower_rungs(results: Sequence[RungResult]) -> list[str]:
    """Rungs that cost more per token than the one below, beyond the noise: they do not pay here."""
    ran = [each for each in results if each.timing]
    times = per_token(ran)
    return [
        rung.rung.name
        for below, rung in pairwise(ran)
        if times.verdict(rung.rung.name, below.rung.name) == "slower"
    ]


def print_verdict(results: Sequence[RungResult]) -> None:
    """Print which rungs do not pay on this machine, and which one sells the cheapest tokens."""
    slower = slower_rungs(results)
    print("Dearer per token here than the rung below:", measured(", ".join(slower) or "none"))
    print("Cheapest tokens:", measured(names_of(cheapest(results))))
    print("Lowest peak:", names_of(lowest(results)))


def predicted_rows(
    results: Sequence[RungResult], config: GPTConfig, times: MachineTimes
) -> list[list[str]]:
    """A row under PREDICTED_HEADERS for each rung that ran: bytes by the planner's formulas, and
    seconds by small steps of other shapes, beside what came."""
    rows = []
    for each in results:
        if each.timing:
            recipe = each.rung.recipe
            peak_bytes = recipe_bytes(recipe, config).peak.total
            step_s = times.step_s(recipe, config.num_layers)
            rows.append([
                each.rung.name,
                f"{peak_bytes / 1e6:,.2f} MB",
                f"{each.peak_bytes / 1e6:,.2f} MB",
                f"{peak_bytes / each.peak_bytes - 1:+.1%}",
                measured(1e3 * step_s, "ms"),
                measured(1e3 * each.step_s, "ms"),
                measured(f"{step_s / each.step_s - 1:+.0%}"),
            ])  # fmt: skip
    return rows


def recorded_rows(
    runs: Iterable[RecordedRun], usd_per_device_hour: Mapping[str, float]
) -> Iterator[list[str]]:
    """Rows under RECORDED_HEADERS; prices are per core under "cpu", per GPU under "cuda".

    The first row of a run names it; a run whose rows cannot be read has one row that says so.
    """
    for run in runs:
        try:
            results = [result_of(row) for row in run.experiments[EXPERIMENT]]
            rows = [_recorded(each, usd_per_device_hour[run.kind]) for each in results]
        except (KeyError, TypeError, ValueError) as error:
            why = f"cannot be read ({type(error).__name__}): record it again"
            rows = [[why, *[""] * (len(RECORDED_HEADERS) - 2)]]
        yield from ([run.label if row is rows[0] else "", *row] for row in rows)


def _changes(results: Sequence[RungResult]) -> list[list[str]]:
    return [changed_things(a.rung.recipe, b.rung.recipe) for a, b in pairwise(results)]


def _cells(result: RungResult, first: RungResult, usd_per_device_hour: float) -> list[str]:
    if not result.timing:
        return ["-"] * (len(LADDER_HEADERS) - 2)
    return [
        f"{result.peak_bytes / 1e6:,.2f}",
        f"{result.held_bytes / 1e6:,.2f}",
        f"{result.flops_per_token / first.flops_per_token:.2f}" if first.flops_per_token else "-",
        measured(result.num_updates),
        measured(1e3 * result.step_s, "ms"),
        measured(result.tokens_per_s),
        measured(usd_text(result.usd_per_billion_tokens(usd_per_device_hour))),
        measured(f"{result.loss:.3f}"),
    ]


def _recorded(result: RungResult, usd_per_device_hour: float) -> list[str]:
    if not result.timing:
        return [result.rung.name, result.problem, *[""] * (len(RECORDED_HEADERS) - 3)]
    return [
        result.rung.name,
        f"{result.peak_bytes / 1e6:,.1f}",
        f"{1e3 * result.step_s:,.1f}",
        f"{result.tokens_per_s:,.0f}",
        usd_text(result.usd_per_billion_tokens(usd_per_device_hour)),
        f"{result.loss:.3f}",
    ]


def main() -> None:
    """Predict, climb, print everything at 5 cents a core-hour; `python -m utils.ladder_report`."""
    times = calibrate([rung.recipe for rung in RUNGS], CONFIG)
    results = climb()
    print_ladder(results, 0.05)
    print(*step_sentences(results), sep="\n")
    print_verdict(results)
    table(PREDICTED_HEADERS, predicted_rows(results, CONFIG, times), "Predicted, then measured")


if __name__ == "__main__":
    main()
