"""All that the course teaches beside the libraries: the same GPT, seed and batches, one table.

How it works: `CONTESTS` (contests.py) names each technique with those who do it, ours first. Each
trains the same steps by itself (`utils.peers.table.compare`): what fails loses its own line only,
and what cannot run here shows a recorded run, if that trained the same. Everyone is held against
one process in fp32, and against the technique's first, ours.

All run on processors by gloo, also beside a GPU, so that bytes, calls and traffic are the same
everywhere. Left out: a winner; sizes at which the seconds would mean something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata

import torch

from utils.measured import MARK, measured, table
from utils.peers import TrainingJob
from utils.peers.comparison_row import ComparisonRow
from utils.peers.contests import CONTESTS, PROBLEMS, Contestant
from utils.peers.real_yafsdp import TRIED_COMMIT
from utils.peers.recorded_runs import read_peer
from utils.peers.table import calls_text, compare, gap_text, recorded_rows

HEADERS = ("technique", "whose", "ranks", "loss gap", "weight gap", "from ours", "bytes held",
           "at the peak", "weights sent", "at least", "calls", "step", "ran here?")  # fmt: skip
YAFSDP = "YaFSDP"


@dataclass(frozen=True)
class ComparedLine:
    """A contestant, on how many ranks, and what came of it."""

    contestant: Contestant
    num_ranks: int
    row: ComparisonRow

    @property
    def ran_here(self) -> bool:
        """Whether its figures are of this machine."""
        return not self.row.problem


def compare_everything(
    num_ranks: int = 2,
    job: TrainingJob | None = None,
    techniques: Sequence[str] = (),
    precision: str = "fp32",
) -> list[ComparedLine]:
    """Train all contestants of these techniques (of all, if none is named), one after the other.

    `precision` is that of what is spread over ranks, "fp32" or "bf16". Raises ValueError for an
    unknown technique or precision, or a batch that does not divide by the ranks.
    """
    job = _checked(job or TrainingJob(), num_ranks, techniques, precision)
    chosen = [each for each in CONTESTS if not techniques or each.technique in techniques]
    lines = {}
    for is_spread in (False, True):
        mine = [each for each in chosen if each.is_spread == is_spread]
        ranks, low = (num_ranks, precision == "bf16") if is_spread else (1, False)
        here = replace(job, low_precision=low)
        systems = {
            each.name: each.problem() or each.system(ranks, precision if is_spread else "fp32")
            for each in mine
        }
        recorded = {each.name: _recorded(each, ranks, here) for each in mine}
        rows = compare(systems, ranks, here, recorded, keep_going=True, backend="gloo")
        for each, row in zip(mine, rows, strict=True):
            lines[each] = ComparedLine(each, ranks, row)
    return [lines[each] for each in chosen]


def loss_from_ours(line: ComparedLine, lines: Sequence[ComparedLine]) -> float:
    """The largest loss difference from the technique's first line; nan where one has none."""
    same = [each for each in lines if each.contestant.technique == line.contestant.technique]
    pairs = list(zip(line.row.losses, same[0].row.losses, strict=False))
    if same[0] is line or not pairs:
        return float("nan")
    return max(abs(mine - theirs) for mine, theirs in pairs)


def print_everything(
    lines: Sequence[ComparedLine], caption: str = "The same steps by everyone"
) -> None:
    """Show the table, and for each library whether it ran here, or why not.

    What depends on which libraries a machine has stands between the marks of measured values.
    """
    table(HEADERS, [_cells(line, lines) for line in lines], caption)
    print("Bytes are per parameter and rank, weights sent per step and rank.")
    for library in dict.fromkeys(line.contestant.library for line in lines):
        mine = [line for line in lines if line.contestant.library == library]
        print(f"{library}:", measured(_account(library, mine)))


def _cells(line: ComparedLine, lines: Sequence[ComparedLine]) -> list[str]:
    row, contestant = line.row, line.contestant
    here = "yes" if line.ran_here else "recorded" if row.recorded else "no"
    figures = (row.held_per_parameter, row.peak_per_parameter, row.sent_weights)
    told = [f"{each:.2f}" for each in (*figures, row.textbook_weights)] if row.held else ["-"] * 4
    gap = gap_text(row.parameter_gap)
    cells = [
        gap_text(row.loss_gap),
        measured(gap) if contestant.library in PROBLEMS else gap,  # no recorded run has it
        gap_text(loss_from_ours(line, lines)),
        *told,
        calls_text(row.calls) if row.held else "-",
        measured(1e3 * row.step_s, "ms") if row.held else "-",
        measured(here),
    ]
    if contestant.library == YAFSDP:
        cells = [each if each.startswith(MARK) else measured(each) for each in cells]
    return [contestant.technique, contestant.whose, str(line.num_ranks), *cells]


def _account(library: str, lines: Sequence[ComparedLine]) -> str:
    """What ran, by version, and what did not, by reason."""
    why: dict[str, list[str]] = {}
    for line in lines:
        reason = line.row.problem and " ".join((line.row.problem, line.row.recorded)).strip()
        why.setdefault(reason, []).append(line.contestant.technique)
    parts = [f"{', '.join(names)}: {reason}" for reason, names in why.items() if reason]
    if len(why) == 1 and parts:
        return next(iter(why))
    return ". ".join([f"ran here ({_version(library)})"] * ("" in why) + parts)


def _version(library: str) -> str:
    if library == "DeepSpeed":
        return metadata.version("deepspeed")
    torch_version = torch.__version__.partition("+")[0]
    return f"commit {TRIED_COMMIT}" if library == YAFSDP else f"torch {torch_version}"


def _recorded(contestant: Contestant, num_ranks: int, job: TrainingJob) -> ComparisonRow:
    """Its recorded row, if the very same was trained; else an empty one."""
    empty = ComparisonRow(contestant.name)
    if not contestant.recorded:
        return empty
    try:
        run = read_peer(contestant.library.lower())
    except ValueError:  # a damaged file: the row says why it did not run, and shows nothing
        return empty
    if replace(run.job, low_precision=job.low_precision) != job:
        return empty
    rows = recorded_rows(run, num_ranks, job.low_precision)
    return replace(rows.get(contestant.recorded, empty), name=contestant.name)


def _checked(
    job: TrainingJob, num_ranks: int, techniques: Sequence[str], precision: str
) -> TrainingJob:
    known = list(dict.fromkeys(each.technique for each in CONTESTS))
    unknown = [each for each in techniques if each not in known]
    if unknown:
        raise ValueError(f"No technique is called {unknown[0]!r}; there are {', '.join(known)}.")
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision must be fp32 or bf16, not {precision!r}.")
    if job.batch_size % (num_ranks * job.num_micro_batches):
        raise ValueError(
            f"{job.batch_size} sequences do not divide into {num_ranks} ranks x "
            f"{job.num_micro_batches} micro-batches."
        )
    return job
