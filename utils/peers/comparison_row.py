"""The line of one system in the comparison table: of a run here, or of a recorded one.

How it works: what all ranks of a system saw becomes one `ComparisonRow`, in which the worst rank
counts. Bytes are divided by the model's parameters, traffic by the bytes of its weights, so that
models of all sizes read alike. Left out: the table itself (`utils.peers.table`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from utils.peers.harness import OWNED, SystemBytes, SystemRun, largest_gap
from utils.peers.recorded_runs import PeerRow, RecordedPeer


@dataclass(frozen=True)
class ComparisonRow:
    """One system; of several ranks the largest figure.

    `problem` is why it did not run here; then `recorded` says where and when its figures, if it
    has any, were recorded.
    """

    name: str
    loss_gap: float = math.nan  # nats, largest of all steps
    parameter_gap: float = math.nan  # after the last step
    held: Mapping[str, float] = field(default_factory=dict)  # bytes per parameter, by category
    peak_per_parameter: float = math.nan  # bytes, activations included
    num_allocations: int = 0  # in one step
    sent_weights: float = math.nan  # bytes sent in a step / bytes of the weights
    textbook_weights: float = math.nan  # the same with a reduce-scatter that sends half as much
    calls: Mapping[str, int] = field(default_factory=dict)
    step_s: float = math.nan
    losses: tuple[float, ...] = ()  # of each step, the mean over ranks
    problem: str = ""
    recorded: str = ""

    @property
    def held_per_parameter(self) -> float:
        """Weights, gradients and optimizer state together."""
        return sum(self.held.values())


def row_of(
    name: str,
    runs: Sequence[SystemRun],
    sizes: Sequence[SystemBytes],
    oracle: SystemRun,
    weight_bytes: int,
) -> ComparisonRow:
    """The row of what all ranks of one system saw; `weight_bytes` is that of one weight."""
    gaps = [largest_gap(run, oracle) for run in runs]
    num_parameters = sum(each.numel() for each in oracle.parameters)
    fullest = max(sizes, key=lambda size: size.held_bytes)
    return ComparisonRow(
        name,
        loss_gap=max(loss for loss, _ in gaps),
        parameter_gap=max(parameter for _, parameter in gaps),
        held={each: fullest.held.get(each, 0) / num_parameters for each in OWNED},
        peak_per_parameter=max(size.peak_bytes for size in sizes) / num_parameters,
        num_allocations=max(size.num_allocations for size in sizes),
        sent_weights=max(run.sent_bytes for run in runs) / (weight_bytes * num_parameters),
        textbook_weights=max(run.textbook_bytes for run in runs) / (weight_bytes * num_parameters),
        calls=dict(runs[0].calls),
        step_s=max(run.median_step_s for run in runs),
        losses=runs[0].losses,
    )


def recorded_rows(
    run: RecordedPeer, world_size: int, low_precision: bool = False
) -> dict[str, ComparisonRow]:
    """The rows of a recorded library with so many ranks, by name, such as "DeepSpeed stage 1"."""
    return {
        f"{run.library} {row.setting}": _recorded_row(f"{run.library} {row.setting}", row, run)
        for row in run.rows
        if (row.world_size, row.low_precision) == (world_size, low_precision)
    }


def _recorded_row(name: str, row: PeerRow, run: RecordedPeer) -> ComparisonRow:
    weights_bytes = row.num_parameters * (2 if row.low_precision else 4)
    return ComparisonRow(
        name,
        loss_gap=row.loss_gap,
        held={each: row.held.get(each, 0) / row.num_parameters for each in OWNED},
        peak_per_parameter=row.peak_bytes / row.num_parameters,
        sent_weights=row.sent_bytes / weights_bytes,
        textbook_weights=row.textbook_bytes / weights_bytes,
        calls=row.calls,
        step_s=row.step_s,
        losses=row.losses,
        recorded=run.label,
    )
