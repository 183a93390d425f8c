"""What lab 09's division is judged by: buffers that leave late, on real ranks, and exact sums.

How it works: `LateSums` reads a buffer only when somebody waits for its message, so that a buffer
filled too early is a wrong sum on every run. What was filled, sent and waited for goes into a log;
no clock is read, and ranks that send different messages say so. Gradients are small whole numbers
times a scale, exact in 16 bits and in fp32 sums; divided or added up in 16 bits they are not.
Suffixes: N ranks, K micro-batches, L layers, P values of a layer, S = P / N of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from utils.checks.truth_08_store import tell
from utils.memory import MemoryMeter
from utils.techniques.buffered_shard import exact_sum_scatter

NUM_RANKS, NUM_VALUES = 3, 120
FILL, SENT, WAITED = "fill", "sent", "waited"
BEFORE, LAST = "before", "the last backward begins"


@dataclass(frozen=True)
class Case:
    """`first` is how many times larger the first micro-batch's gradients are."""

    name: str
    num_layers: int
    num_micro: int
    dtype: torch.dtype
    scale: float = 1.0
    first: float = 1.0
    num_buffers: int = 2

    @property
    def gradients_NKLP(self) -> Tensor:
        """All gradients, fp32 and exact in `dtype`."""
        generator = torch.Generator().manual_seed(self.num_layers)
        shape = NUM_RANKS, self.num_micro, self.num_layers, NUM_VALUES
        drawn = torch.randint(1, 4, shape, generator=generator) * self.scale
        drawn[:, 0] *= self.first
        return drawn

    @property
    def true_LP(self) -> Tensor:
        """The mean over ranks and micro-batches."""
        return self.gradients_NKLP.double().mean((0, 1)).float()

    @property
    def num_messages(self) -> int:
        """One for each layer of each micro-batch."""
        return self.num_layers * self.num_micro


CASES = (
    Case("5 layers, 4 micro-batches in bf16", 5, 4, torch.bfloat16, first=256.0),
    Case("fp16 gradients of 6e-8", 3, 2, torch.float16, scale=2.0**-24),
    Case("large fp16 gradients in three buffers", 4, 2, torch.float16, 2.0**14, num_buffers=3),
)


@dataclass
class Run:
    """One case on one rank. The log: (fill | sent | waited, number of the fill or message)."""

    returned: list[Tensor] | object = None
    log: list[tuple[str, int]] = field(default_factory=list)
    filled: list[tuple[int, int]] = field(default_factory=list)  # (micro-batch, layer)
    num_elsewhere: int = 0  # fills and messages that use no buffer
    touched: list[int] = field(default_factory=list)  # messages whose buffer has changed
    extra_bytes: int = 0  # when the last backward begins


@dataclass
class _Message:
    sums: LateSums
    buffer_P: Tensor
    number: int
    snapshot: bytes
    sum_S: Tensor | None = None

    def wait(self) -> Tensor:
        """This rank's part of the sum, in fp32."""
        self.sums.run.log.append((WAITED, self.number))
        self.sums.deliver(self)
        return self.sum_S.clone()


class LateSums:
    """Messages that read their buffer as late as they may; delivered in the order of sending."""

    def __init__(self, rank: int, run: Run) -> None:
        self.rank, self.run, self.number = rank, run, 0
        self._queue: list[_Message] = []

    def start(self, buffer_P: Tensor) -> _Message:
        """Begin to sum a buffer over ranks."""
        message = _Message(self, buffer_P, self.number, _bytes_of(buffer_P))
        self.run.log.append((SENT, self.number))
        self.number += 1
        self._queue.append(message)
        return message

    def deliver(self, last: _Message) -> None:
        """All messages up to this one."""
        while last.sum_S is None:
            message = self._queue.pop(0)
            if _bytes_of(message.buffer_P) != message.snapshot:
                self.run.touched.append(message.number)
            tell(f"sends message {message.number + 1}")
            sum_S = torch.empty(NUM_VALUES // NUM_RANKS)
            exact_sum_scatter(sum_S, message.buffer_P, self.rank, NUM_RANKS)
            message.sum_S = sum_S


def _bytes_of(tensor: Tensor) -> bytes:
    """The values; memory that the meter does not count."""
    return tensor.view(torch.int16).numpy().tobytes()


def divide_trial(rank: int, world_size: int, answer: Callable) -> list[Run]:
    """All cases."""
    return [_run(case, rank, answer) for case in CASES]


@torch.no_grad()
def _run(case: Case, rank: int, answer: Callable) -> Run:
    run = Run()
    sums = LateSums(rank, run)
    with MemoryMeter() as meter:
        gradients_KLP = case.gradients_NKLP[rank].to(case.dtype)
        buffers = [torch.full((NUM_VALUES,), 7.0, dtype=case.dtype)  # not zero: it must be made so
                   for _ in range(case.num_buffers)]  # fmt: skip
        places = {each.data_ptr() for each in buffers}

        def fill(micro: int, layer: int, buffer_P: Tensor) -> None:
            if len(run.filled) == case.num_messages - 1:
                meter.mark(LAST)
            run.log.append((FILL, len(run.filled)))
            run.filled.append((micro, layer))
            run.num_elsewhere += buffer_P.data_ptr() not in places
            buffer_P += gradients_KLP[micro, layer]

        def start_sum(buffer_P: Tensor) -> _Message:
            run.num_elsewhere += buffer_P.data_ptr() not in places
            return sums.start(buffer_P)

        meter.mark(BEFORE)
        counts = case.num_layers, case.num_micro
        run.returned = answer(fill, *counts, list(buffers), start_sum, NUM_RANKS)
        report = meter.report()
    tell("has returned")
    if len(run.filled) >= case.num_messages:
        run.extra_bytes = sum(report.at_mark(LAST).values()) - sum(report.at_mark(BEFORE).values())
    return run
