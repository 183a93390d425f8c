"""The real YaFSDP's rows beside ours, so that machines with and without it print the same.

How it works: where the real one can be imported it trains the same model here; elsewhere its
recorded run is shown. Either way its cells stand between the marks of measured numbers, and so does
the line that says where they come from, for the notebook is compared on both kinds of machines.

Left out: the weights' gap, which a recorded run does not have.
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.measured import MARK, measured, table
from utils.peers import SMALL, TrainingJob
from utils.peers.real_yafsdp import TRIED_COMMIT, real_yafsdp_system, yafsdp_problem
from utils.peers.recorded_runs import read_peer
from utils.peers.table import ComparisonRow, calls_text, compare, gap_text, recorded_rows

MODES = {"YaFSDP ZeRO-3": True, "YaFSDP ZeRO-2": False}  # are weights freed after forward?
HEADERS = ["system", "loss gap", "bytes held", "buffers, in blocks", "weights sent", "at least",
           "calls", "step"]  # fmt: skip


def real_yafsdp_rows(num_ranks: int) -> tuple[list[ComparisonRow], str]:
    """The rows of both modes on 2 or 4 ranks in fp32, and where they come from in words."""
    if yafsdp_problem() is None:
        systems = {
            name: real_yafsdp_system(reshard_after_forward=frees) for name, frees in MODES.items()
        }
        rows = compare(systems, num_ranks, TrainingJob())
        return rows, f"run here (tried with commit {TRIED_COMMIT})"
    recorded = read_peer("yafsdp")
    rows = recorded_rows(recorded, num_ranks)
    return [rows[name] for name in MODES], f"not installed here, recorded with {recorded.label}"


def print_beside(
    ours: Sequence[ComparisonRow], num_ranks: int, config: GPTConfig = SMALL
) -> None:
    """One table of our rows and the real one's on so many ranks, and a line on the latter."""
    rows, source = real_yafsdp_rows(num_ranks)
    cells = [_cells(row, num_ranks, config) for row in ours]
    for row in rows:
        name, *rest = _cells(row, num_ranks, config)
        cells.append([name, *(_marked(each) for each in rest)])
    table(HEADERS, cells, f"{num_ranks} ranks, fp32")
    print("The real one:", measured(source))


def buffers_in_blocks(row: ComparisonRow, num_ranks: int, config: GPTConfig) -> float:
    """What is held beyond 16/N bytes a parameter, in units of a block's fp32 weights."""
    count = count_parameters(config)
    return (row.held_per_parameter - 16 / num_ranks) * count.total / (4 * count.block)


def _cells(row: ComparisonRow, num_ranks: int, config: GPTConfig) -> list[str]:
    return [
        row.name,
        gap_text(row.loss_gap),
        f"{row.held_per_parameter:.2f}",
        f"{buffers_in_blocks(row, num_ranks, config):.1f}",
        f"{row.sent_weights:.2f}",
        f"{row.textbook_weights:.2f}",
        calls_text(row.calls),
        measured(1e3 * row.step_s, "ms"),
    ]


def _marked(cell: str) -> str:
    return cell if cell.startswith(MARK) else measured(cell)
