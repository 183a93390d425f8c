"""Tensors of a whole layer's size that a training step makes and frees, and what else it costs.

How it works: `churn` trains two steps of our FSDP or YaFSDP under the memory meter and returns the
second. A storage counts as *whole* if it has the size of a unit's flat tensor: gathered weights,
flat gradients, buffers. `seconds_and_faults` trains two systems in turn on layers so large that the
C library gives their memory back to the system at every free; the system then brings each page in
anew at its first use, a *page fault*, which it counts.

Left out: a GPU's caching allocator, which has costs of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.memory import MemoryMeter
from utils.memory_report import MemoryReport
from utils.model import build_gpt
from utils.peers import MakeSystem, TrainingJob
from utils.peers.harness import OWNED, batches, parts_of
from utils.peers.our_yafsdp import yafsdp_system
from utils.peers.ours import fsdp_system
from utils.ranks import TrafficLedger, run_ranks
from utils.techniques.flat_shard import FlatShard
from utils.timing import Comparison, Timing

LAYERS_HEADERS = ["layers"] + [
    f"{what}, {name}"
    for what in ("whole units made", "held", "peak", "sent")
    for name in ("FSDP", "YaFSDP")
]
PHASES = ("forward", "backward", "update")
NUM_WARM = 1  # steps that do not count
# A block has 39 MB in fp32; glibc hands back what is larger than 32 MiB.
LARGE = TrainingJob(GPTConfig(3, 8, 896, 16, 64), batch_size=2)


@dataclass(frozen=True)
class Churn:
    """One step of one rank; `places` run from 0 to 3, a whole number a phase."""

    places: np.ndarray
    whole: np.ndarray  # bytes of whole units that are alive, after each event
    total: np.ndarray  # bytes of everything
    num_whole: int  # whole units allocated in the step
    whole_allocated_bytes: int
    num_all: int  # storages of any size allocated in the step
    held_bytes: int  # weights, gradients and optimizer state, buffers included, after backward
    sent_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at once."""
        return int(self.total.max())


def churn(make_system: MakeSystem, job: TrainingJob, num_ranks: int = 2) -> Churn:
    """Rank 0's second step under the system; its messages must not travel in a thread."""
    return run_ranks(step_churn, num_ranks, make_system, job)[0]


def step_churn(rank: int, world_size: int, make_system: MakeSystem, job: TrainingJob) -> Churn:
    """A worker of `churn`; Adam's state is made in the first of two steps."""
    model = build_gpt(job.config, seed=job.seed)
    steps = [parts_of(batch, rank, world_size, 1)[0] for batch in batches(job)][:2]
    model.register_forward_hook(lambda *_: meter.mark("backward"))
    held = 0
    with MemoryMeter(model) as meter:
        system = make_system(model, rank, world_size, job)
        sizes = {shard.layout.padded_values for shard in shards_of(system)}
        for number, (tokens_BT, targets_BT) in enumerate(steps):
            meter.mark(f"step {number}")
            with TrafficLedger() as ledger:
                system.backward(tokens_BT, targets_BT, True)
            meter.mark("update")
            held = _num_bytes(system.owned())
            system.step()
    return _second_step(meter.report(), sizes, held, ledger.bytes_sent)


def layers_row(num_layers: int) -> list[float]:
    """FSDP and YaFSDP on two ranks with so many layers, in the order of LAYERS_HEADERS."""
    job = TrainingJob(GPTConfig(num_layers, 4, 128, 32), batch_size=4)
    both = [churn(each, job) for each in (fsdp_system(), yafsdp_system())]
    num_parameters = count_parameters(job.config).total
    return [
        num_layers,
        *(each.num_whole for each in both),
        *(each.held_bytes / num_parameters for each in both),
        *(each.peak_bytes / num_parameters for each in both),
        *(each.sent_bytes / (4 * num_parameters) for each in both),
    ]


def shards_of(system: Any) -> list[FlatShard]:
    """All units of our FSDP or our YaFSDP behind the interface of `utils.peers`."""
    return (system.sharded if hasattr(system, "sharded") else system.fsdp).shards


def _num_bytes(owned: Mapping[str, list[Any]]) -> int:
    """Bytes of the storages, each counted once."""
    storages = {
        each.untyped_storage()._cdata: each.untyped_storage().nbytes()
        for category in OWNED
        for each in owned[category]
    }
    return sum(storages.values())


def _second_step(report: MemoryReport, sizes: set[int], held: int, sent: int) -> Churn:
    starts = [dict(report.marks)[name] for name in ("step 1", "backward", "update")]
    edges = [*starts, len(report.operations)]
    is_whole = [len(block.shape) == 1 and block.shape[0] in sizes for block, *_ in report._events]
    change = np.array([change for _, change, _ in report._events])
    whole = np.where(is_whole, change, 0)
    made = whole[starts[0] :].clip(min=0)
    return Churn(
        np.interp(np.arange(starts[0], edges[-1]), edges, range(len(edges))),
        np.cumsum(whole)[starts[0] :],
        np.cumsum(change)[starts[0] :],
        int((made > 0).sum()),
        int(made.sum()),
        int((change[starts[0] :] > 0).sum()),
        held,
        sent,
    )


def seconds_and_faults(
    systems: Mapping[str, MakeSystem], job: TrainingJob = LARGE, num_rounds: int = 4
) -> tuple[Comparison, dict[str, int]]:
    """Step times on two ranks, and rank 0's page faults a step by system, one round each."""
    longer = TrainingJob(job.config, job.batch_size, num_steps=num_rounds + NUM_WARM)
    by_rank = run_ranks(rounds, 2, dict(systems), longer, quiet=True)
    slowest = {
        name: Timing(tuple(max(rank[name][i][0] for rank in by_rank) for i in range(num_rounds)))
        for name in systems
    }
    faults = {name: int(np.median([each[1] for each in by_rank[0][name]])) for name in systems}
    return Comparison(slowest), faults


def rounds(
    rank: int, world_size: int, systems: Mapping[str, MakeSystem], job: TrainingJob
) -> dict[str, list[tuple[float, int]]]:
    """(seconds, page faults) of each step but NUM_WARM, the systems in turn; a worker."""
    built = {name: make(build_gpt(job.config), rank, world_size, job)
             for name, make in systems.items()}  # fmt: skip
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in systems}
    for number, batch in enumerate(batches(job)):
        tokens_BT, targets_BT = parts_of(batch, rank, world_size, 1)[0]
        for name, system in built.items():
            dist.barrier()
            before, start_s = _page_faults(), time.perf_counter()
            system.backward(tokens_BT, targets_BT, True)
            system.step()
            seconds = time.perf_counter() - start_s
            if number >= NUM_WARM:
                found[name].append((seconds, _page_faults() - before))
    return found


def _page_faults() -> int:
    """Pages of memory that the system has brought in for this process so far."""
    import resource  # not on Windows, whose learners run ranks in WSL

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
