"""What one setting of our FSDP costs a rank: bytes held, the peak of a step, bytes sent by kind.

How it works: two runs on the same ranks, one under the memory meter and one under the ledger. Bytes
sent are divided by the model's bytes in fp32, whatever the setting computes in, so that settings
can be compared.

Left out: seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.costs import count_parameters
from utils.model import build_gpt
from utils.peers import TrainingJob
from utils.peers.harness import batches, measure_system, parts_of
from utils.peers.ours import fsdp_system
from utils.ranks import TrafficLedger, run_ranks


@dataclass(frozen=True)
class FsdpBill:
    """One rank, one step; `sent` by kind of collective, in models of fp32."""

    held_per_parameter: float
    peak_bytes: int
    sent: dict[str, float]

    @property
    def peak_mb(self) -> float:
        """The peak in megabytes."""
        return self.peak_bytes / 1e6

    def of(self, *kinds: str) -> list[float]:
        """What was sent in each of these kinds, 0 if nothing was."""
        return [self.sent.get(kind, 0.0) for kind in kinds]


def fsdp_bill(num_ranks: int, job: TrainingJob, **options: Any) -> FsdpBill:
    """Measure rank 0; `options` are those of `utils.peers.ours.fsdp_system`."""
    size = run_ranks(measure_system, num_ranks, fsdp_system(**options), job)[0]
    sent = run_ranks(sent_by_kind, num_ranks, job, options)[0]
    held = size.held_bytes / count_parameters(job.config).total
    return FsdpBill(held, size.peak_bytes, sent)


def sent_by_kind(
    rank: int, world_size: int, job: TrainingJob, options: dict[str, Any]
) -> dict[str, float]:
    """Forward and backward of a step, in models; a worker. The ring's messages are "send"."""
    system = fsdp_system(**options)(build_gpt(job.config), rank, world_size, job)
    parts = parts_of(next(batches(job)), rank, world_size, job.num_micro_batches)
    with TrafficLedger() as ledger:
        for number, (tokens_BT, targets_BT) in enumerate(parts):
            system.backward(tokens_BT, targets_BT, number == len(parts) - 1)
    model_bytes = 4 * count_parameters(job.config).total
    return {row.kind: row.bytes_sent / model_bytes for row in ledger.rows()}
