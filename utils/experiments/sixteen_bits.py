"""How wrong a reduce-scatter of 16-bit messages is, and what it sends.

How it works: every rank makes its own random values, and all of them are added up in three ways:
fp32 messages on the ring; bf16 messages on the ring, which rounds its sum at every hop; and bf16
messages that each rank adds up in fp32. The error is relative to the first way, in the 2-norm.

Left out: errors of training; those of five steps are smaller than bf16's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from utils.ranks import TrafficLedger, run_ranks
from utils.techniques.buffered_shard import exact_sum_scatter
from utils.techniques.ring import ring_reduce_scatter

NUM_VALUES = 2**15
# Name -> (format of messages, format of sums, reduce-scatter).
WAYS = {
    "fp32, ring": (torch.float32, torch.float32, ring_reduce_scatter),
    "bf16, ring": (torch.bfloat16, torch.bfloat16, ring_reduce_scatter),
    "bf16, sums in fp32": (torch.bfloat16, torch.float32, exact_sum_scatter),
}


def scatter_errors(rank: int, world_size: int) -> dict[str, tuple[float, float]]:
    """(bytes sent in units of the fp32 tensor, relative error) of each way; a worker."""
    values_P = torch.rand(NUM_VALUES, generator=torch.Generator().manual_seed(rank)) - 0.5
    sums, found = {}, {}
    for name, (sent, summed, scatter) in WAYS.items():
        sums[name] = torch.empty(NUM_VALUES // world_size, dtype=summed)
        with TrafficLedger() as ledger:
            scatter(sums[name], values_P.to(sent), rank, world_size)
        right_S = sums["fp32, ring"]
        error = (sums[name].float() - right_S).norm() / right_S.norm()
        found[name] = ledger.bytes_sent / values_P.nbytes, error.item()
    return found


def scatter_rows(num_ranks: Sequence[int]) -> list[list[str | float]]:
    """A row a way: its name, then sent and error of rank 0 for each number of ranks."""
    on = [run_ranks(scatter_errors, n, quiet=True)[0] for n in num_ranks]
    return [
        [name, *(cell for found in on for cell in (found[name][0], f"{found[name][1]:.2%}"))]
        for name in WAYS
    ]
