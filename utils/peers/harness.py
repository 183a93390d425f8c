"""The same training under any system: losses, weights, bytes held, bytes sent, seconds.

How it works: `train_system` and `measure_system` are workers for `run_ranks`. The first trains and
counts traffic in the last step, when nothing is new any more; the second trains three steps under
the memory meter, the last two on the same batch, and reports what the second holds when its
gradients are there, and the lower peak of these two: a thread may hold a tensor a moment longer.
`one_process` is the oracle: the same steps on one rank, without any system.

Left out: data loading. Batches come from a seed, so that every system gets the same ones.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor

from utils.memory import MemoryMeter
from utils.model import build_gpt
from utils.peers import MakeSystem, System, TrainingJob, loss_of
from utils.ranks import TrafficLedger

METERED_BATCHES = (0, 1, 1)  # of `measure_system`: nothing is new in the last two steps


@dataclass(frozen=True)
class SystemRun:
    """What one rank saw; `sent_bytes` and `calls` are those of one step, the last one."""

    losses: tuple[float, ...]
    parameters: list[Tensor]
    sent_bytes: int
    calls: dict[str, int]
    step_s: tuple[float, ...]
    textbook_bytes: float = 0.0  # what would have been enough: gloo's reduce-scatter sends twice it

    @property
    def median_step_s(self) -> float:
        """Median seconds of a step, the first two left out."""
        return statistics.median(self.step_s[2:] or self.step_s)


@dataclass(frozen=True)
class SystemBytes:
    """Live bytes on one rank: by category after backward, and at the peak of a step."""

    held: dict[str, int]
    peak_bytes: int
    num_allocations: int  # storages made in one step

    @property
    def held_bytes(self) -> int:
        """Weights, gradients and optimizer state, temporary things excluded."""
        return sum(self.held.values())


def batches(job: TrainingJob) -> Iterator[tuple[Tensor, Tensor]]:
    """tokens_BT and targets_BT of every step, all ranks' sequences together."""
    generator = torch.Generator().manual_seed(job.seed + 1)
    shape = (2, job.batch_size, job.config.context_length)
    for _ in range(job.num_steps):
        tokens_BT, targets_BT = torch.randint(job.config.vocab_size, shape, generator=generator)
        yield tokens_BT, targets_BT


def parts_of(
    batch: tuple[Tensor, Tensor], rank: int, world_size: int, num_micro_batches: int
) -> list[tuple[Tensor, Tensor]]:
    """This rank's micro-batches. Raises ValueError unless the batch divides evenly."""
    size, num_parts = len(batch[0]), world_size * num_micro_batches
    if size % num_parts:
        raise ValueError(
            f"{size} sequences do not divide into {world_size} ranks x {num_micro_batches} "
            f"micro-batches: take a batch size that is a multiple of {num_parts}."
        )
    chunks = [each.chunk(num_parts) for each in batch]
    mine = range(rank * num_micro_batches, (rank + 1) * num_micro_batches)
    return [(chunks[0][i], chunks[1][i]) for i in mine]


def train_system(
    rank: int, world_size: int, make_system: MakeSystem, job: TrainingJob
) -> SystemRun:
    """Train and return what this rank saw; the losses are means over all ranks."""
    system = make_system(build_gpt(job.config, seed=job.seed), rank, world_size, job)
    losses, step_s, ledger = [], [], TrafficLedger()
    for number, batch in enumerate(batches(job)):
        parts = parts_of(batch, rank, world_size, job.num_micro_batches)
        dist.barrier()
        start_s = time.perf_counter()
        if number == job.num_steps - 1:
            with ledger:
                loss = _one_step(system, parts)
        else:
            loss = _one_step(system, parts)
        step_s.append(time.perf_counter() - start_s)
        dist.all_reduce(loss)
        losses.append(loss.item() / world_size)
    parameters = [each.detach().clone().float() for each in system.whole_parameters()]
    enough = sum(row.textbook_bytes for row in ledger.rows())
    return SystemRun(
        tuple(losses), parameters, ledger.bytes_sent, ledger.calls, tuple(step_s), enough
    )


def measure_system(
    rank: int, world_size: int, make_system: MakeSystem, job: TrainingJob
) -> SystemBytes:
    """Train three steps (two, if the job has no more) under the meter; this rank's bytes."""
    first_two = list(islice(batches(job), 2))
    steps = [first_two[number] for number in METERED_BATCHES[: job.num_steps]]
    with MemoryMeter() as meter:
        system = make_system(build_gpt(job.config, seed=job.seed), rank, world_size, job)
        for number, batch in enumerate(steps):
            parts = parts_of(batch, rank, world_size, job.num_micro_batches)
            dist.barrier()
            meter.mark(f"step {number}")
            _backward(system, parts)
            for category, tensors in system.owned().items():
                meter.label(category, *tensors)
            meter.mark(f"gradients {number}")
            system.step()
            del parts
    report = meter.report()
    marks = dict(report.marks)
    starts = [marks[f"step {number}"] for number in range(1, len(steps))]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    held = {name: size for name, size in report.at_mark("gradients 1").items() if name in OWNED}
    made = sum(change > 0 for _, change, _ in report._events[slice(*spans[0])])
    return SystemBytes(held, min(int(report.total[a:b].max()) for a, b in spans), made)


OWNED = ("parameters", "gradients", "optimizer state")


def one_process(job: TrainingJob, num_parts: int = 1) -> SystemRun:
    """The same steps without any system; the batch is cut into `num_parts`, added in order."""
    model = build_gpt(job.config, seed=job.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.learning_rate)
    losses, step_s = [], []
    for batch in batches(job):
        start_s, total = time.perf_counter(), torch.zeros(())
        for tokens_BT, targets_BT in parts_of(batch, 0, 1, num_parts):
            loss = loss_of(model, tokens_BT, targets_BT) / num_parts
            loss.backward()
            total += loss.detach()
        if job.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), job.max_norm)
        optimizer.step()
        optimizer.zero_grad()
        step_s.append(time.perf_counter() - start_s)
        losses.append(total.item())
    parameters = [each.detach().clone() for each in model.parameters()]
    return SystemRun(tuple(losses), parameters, 0, {}, tuple(step_s))


def largest_gap(run: SystemRun, oracle: SystemRun) -> tuple[float, float]:
    """The largest difference of a loss, and of a parameter."""
    loss = max(abs(a - b) for a, b in zip(run.losses, oracle.losses, strict=True))
    pairs = zip(run.parameters, oracle.parameters, strict=True)
    return loss, max((a - b).abs().max().item() for a, b in pairs)


def _one_step(system: System, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """All micro-batches of this rank, then the update; the mean loss."""
    total = _backward(system, parts)
    system.step()
    return total


def _backward(system: System, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    total = torch.zeros(())
    for number, (tokens_BT, targets_BT) in enumerate(parts):
        loss = system.backward(tokens_BT, targets_BT, number == len(parts) - 1)
        total += loss.detach().float() / len(parts)
        del loss
    return total
