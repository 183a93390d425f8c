"""One table for several systems that train the same GPT: losses, weights, bytes, traffic, seconds.

How it works: `compare` trains each system on the same ranks, seed and batches (`harness`), holds it
against one process without any system, and keeps the worst of all ranks (`comparison_row`). A text
in place of a system says why it did not run here; it gets its line all the same, filled from
`recorded` rows (`recorded_rows`) if there are any.

Gaps are shown as the limit that they stay below, since their last digits depend on the processor.
Left out: a verdict. Seconds are medians of a few steps, marked as measured; ranks that share cores
take turns, and then they say little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from utils.checks.helpers import one_line
from utils.measured import measured, table
from utils.peers import MakeSystem, TrainingJob, harness
from utils.peers.comparison_row import ComparisonRow, row_of
from utils.peers.comparison_row import recorded_rows as recorded_rows
from utils.peers.harness import OWNED, SystemBytes, SystemRun
from utils.ranks import RankError, run_ranks

GAP_LIMITS = (1e-5, 1e-3, 3e-2)  # fp32 stays below the first, bf16 weights below the last
Formula = tuple[float, float]  # bytes held per parameter, weights sent per step


def compare(
    systems: Mapping[str, MakeSystem | str],
    world_size: int,
    job: TrainingJob | None = None,
    recorded: Mapping[str, ComparisonRow] | None = None,
    keep_going: bool = False,
    backend: str | None = None,
) -> list[ComparisonRow]:
    """Run each system on `world_size` ranks, in the order given.

    A text in place of a system is the reason not to run it; then its row of `recorded` is taken.
    With `keep_going` a system that fails loses its own row only, which then says what happened.
    `backend` is that of `run_ranks`.
    """
    job, recorded = job or TrainingJob(), recorded or {}
    oracle = harness.one_process(job, world_size * job.num_micro_batches)
    rows = []
    for name, system in systems.items():
        if isinstance(system, str):
            rows.append(replace(recorded.get(name, ComparisonRow(name)), problem=system))
            continue
        try:
            pairs = run_ranks(
                train_and_measure, world_size, system, job, quiet=True, backend=backend
            )
        except RankError as error:
            if not keep_going:
                raise
            story = one_line(str(error).partition("\n")[0])
            rows.append(ComparisonRow(name, problem=f"It failed here: {story}"))
            continue
        runs, sizes = zip(*pairs, strict=True)
        rows.append(row_of(name, runs, sizes, oracle, 2 if job.low_precision else 4))
    return rows


def train_and_measure(
    rank: int, world_size: int, make_system: MakeSystem, job: TrainingJob
) -> tuple[SystemRun, SystemBytes]:
    """Both in one process, which halves the imports; the second system is a new one."""
    run = harness.train_system(rank, world_size, make_system, job)
    return run, harness.measure_system(rank, world_size, make_system, job)


def print_comparison(
    rows: Sequence[ComparisonRow],
    formula: Mapping[str, Formula] | None = None,
    caption: str = "The same steps under each system",
) -> None:
    """Show the table, then why each system that did not run here did not.

    `formula` maps a name to what a pencil says: bytes held per parameter, and weights sent.
    """
    headers = ["system", "loss gap", "weight gap", *OWNED, "bytes held"]
    headers += ["formula"] * bool(formula)
    headers += ["weights sent", "at least"]
    headers += ["formula"] * bool(formula)
    table([*headers, "calls", "step"], [_cells(row, formula) for row in rows], caption)
    print("Bytes held are per parameter and rank, weights sent per step and rank.")
    for (problem, recorded), names in _problems(rows).items():
        print(f"Not run here: {', '.join(names)}. {problem}")
        if recorded:
            print(f"Recorded: {recorded}")


def gap_text(gap: float) -> str:
    """The limit that a gap stays below; a large gap as it is."""
    if math.isnan(gap):
        return "-"
    limit = next((limit for limit in GAP_LIMITS if gap < limit), None)
    return f"{gap:.2g}" if limit is None else f"< {limit:g}".replace("e-0", "e-")


def calls_text(calls: Mapping[str, int]) -> str:
    """Collectives of one step; of each message between two ranks the sending end only."""
    parts = [f"{number} {kind}" for kind, number in calls.items() if kind != "recv"]
    return ", ".join(parts).replace("_", "-") or "none"


def _cells(row: ComparisonRow, formula: Mapping[str, Formula] | None) -> list[str]:
    expected = list(formula.get(row.name, (math.nan, math.nan))) if formula else []
    held = [row.held.get(each, math.nan) for each in OWNED]
    has_run = bool(row.held)
    return [
        row.name,
        gap_text(row.loss_gap),
        gap_text(row.parameter_gap),
        *map(_figure, [*held, row.held_per_parameter if has_run else math.nan, *expected[:1]]),
        *map(_figure, [row.sent_weights, row.textbook_weights, *expected[1:]]),
        calls_text(row.calls) if has_run else "-",
        measured(1e3 * row.step_s, "ms") if has_run else "-",
    ]


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _problems(rows: Sequence[ComparisonRow]) -> dict[tuple[str, str], list[str]]:
    problems: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.problem:
            problems.setdefault((row.problem, row.recorded), []).append(row.name)
    return problems
