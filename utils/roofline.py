"""The roofline: how long each operation of a training step must take on a chip, and what bounds it.

How it works: an operation (utils.roofline_work) cannot be faster than its FLOPs at the peak rate of
its format, nor than its bytes at the bandwidth of the memory; the slower of the two is its time,
and a step is the sum. So a step time here is a bound on what the listed operations can do, and a
speed-up is what the format alone can give. Model: Williams, Waterman and Patterson, "Roofline"
(CACM 52(4), 2009). A TPU without an fp32 rate multiplies fp32 values in bf16, as it does by
default (cloud.google.com/tpu/docs/bfloat16, as of 2025-09-04): a change to bf16 halves only bytes.

Left out: caches and fusion (torch.compile moves fewer bytes), launches of small kernels, products
too small to fill a chip, communication, and what is reached of the bandwidth. `measured=True` takes
the measured rate of matrix products from the table of chips instead of the peak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.config import GPTConfig
from utils.costs import training_flops
from utils.hardware import Chip, find_chip, load_chips
from utils.roofline_precisions import Precision, find_precision
from utils.roofline_work import VECTOR, Operation, step_operations


@dataclass(frozen=True)
class Part:
    """Operations of one part of the model together; `compute_bound_s`: of those so bound."""

    flops: int
    num_bytes: int
    seconds: float
    compute_bound_s: float

    @property
    def intensity(self) -> float:
        """FLOPs per byte of memory traffic."""
        return self.flops / self.num_bytes

    @property
    def bound_by(self) -> str:
        """What most of its time waits for: compute or memory."""
        return "compute" if 2 * self.compute_bound_s > self.seconds else "memory"


@dataclass(frozen=True)
class Roofline:
    """One training step on one chip; `model_flops` are those of utils.costs."""

    chip: Chip
    precision: Precision
    operations: tuple[Operation, ...]
    model_flops: int
    measured: bool

    def seconds(self, operation: Operation) -> float:
        """The slower of computing and moving."""
        return max(self.compute_s(operation), self.memory_s(operation))

    def compute_s(self, operation: Operation) -> float:
        """FLOPs over the chip's rate for their format."""
        return operation.flops / flops_rate(self.chip, operation.format, self.measured)

    def memory_s(self, operation: Operation) -> float:
        """Bytes over the bandwidth of the chip's memory."""
        return operation.num_bytes / (self.chip.bandwidth_tb_s * 1e12)

    @property
    def parts(self) -> dict[str, Part]:
        """Every part by its name, in the order of the model."""
        names = dict.fromkeys(each.part for each in self.operations)
        return {name: self._part(name) for name in names}

    @property
    def step_s(self) -> float:
        """Seconds of a step: all operations one after the other."""
        return sum(map(self.seconds, self.operations))

    @property
    def num_bytes(self) -> int:
        """Bytes that a step moves to or from the chip's memory."""
        return sum(each.num_bytes for each in self.operations)

    @property
    def memory_bound_share(self) -> float:
        """Share of the step's time in operations that wait for memory."""
        return 1 - sum(part.compute_bound_s for part in self.parts.values()) / self.step_s

    @property
    def mfu(self) -> float:
        """The most that MFU can be: model FLOPs at the peak of the linear layers' format."""
        return self.model_flops / flops_rate(self.chip, self.precision.linear) / self.step_s

    def _part(self, name: str) -> Part:
        chosen = [each for each in self.operations if each.part == name]
        seconds = [self.seconds(each) for each in chosen]
        bound = [self.compute_s(each) > self.memory_s(each) for each in chosen]
        return Part(
            sum(each.flops for each in chosen),
            sum(each.num_bytes for each in chosen),
            sum(seconds),
            sum(s for s, by_compute in zip(seconds, bound, strict=True) if by_compute),
        )


def roofline(
    chip: Chip | str,
    config: GPTConfig,
    batch_size: int,
    precision: str = "bf16",
    num_tokens: int = 0,
    measured: bool = False,
) -> Roofline:
    """One step on `batch_size` sequences. Raises ValueError where the table lacks a figure."""
    row = find_chip(chip) if isinstance(chip, str) else chip
    if row.bandwidth_tb_s is None:
        raise ValueError(f"The table has no memory bandwidth for {row.name}: it has no roofline.")
    kind = find_precision(precision)
    check_rates(row, kind, measured)
    work = step_operations(config, batch_size, precision, num_tokens)
    model_flops = training_flops(config, batch_size, num_tokens or config.context_length)
    return Roofline(row, kind, work, model_flops, measured)


def speed_up(
    chip: Chip | str,
    config: GPTConfig,
    batch_size: int,
    precision: str = "bf16",
    over: str = "fp32",
    num_tokens: int = 0,
    measured: bool = False,
) -> float:
    """How many times as fast as in `over` a step is by the roofline."""
    new, old = (
        roofline(chip, config, batch_size, name, num_tokens, measured).step_s
        for name in (precision, over)
    )
    return old / new


def flops_rate(chip: Chip, format: str, measured: bool = False) -> float:
    """FLOP/s of a chip for products in `format` ("bf16" is fp16 where a chip has only that).

    "vector" is all that is no product: the chip's fp32 rate, or no bound where that is unknown.
    With `measured`, fp32 and TF32 reach the same share of their peak as bf16 (assumed: the table
    has no measurement of theirs). Raises ValueError for what the table does not have.
    """
    if format == VECTOR:
        return chip.peak_flops("fp32") if chip.fp32_tflops else math.inf
    name = format
    if (format == "bf16" and not chip.bf16_tflops) or (format == "fp32" and rounds_fp32(chip)):
        name = "bf16" if chip.bf16_tflops else "fp16"
    peak = chip.peak_flops(name)
    if not measured:
        return peak
    if not chip.measured_bf16_tflops:
        raise ValueError(f"The table has no measured product of {chip.name}: use its peak.")
    if name == "fp8" and chip.measured_fp8_tflops:
        return chip.measured_fp8_tflops * 1e12
    return peak * chip.measured_bf16_tflops / chip.bf16_tflops


def check_rates(chip: Chip, precision: Precision, measured: bool = False) -> None:
    """Raise ValueError, in one sentence, for a precision that has no roofline on this chip."""
    if precision.name == "autocast" and rounds_fp32(chip):
        raise ValueError(
            f"autocast has no roofline on {chip.name}: a TPU's compiler casts inside other "
            "operations; use bf16."
        )
    for format in (precision.linear, precision.product):
        flops_rate(chip, format, measured)


def has_rates(chip: Chip, precision: str) -> bool:
    """Whether there is a roofline of this chip in this precision."""
    try:
        check_rates(chip, find_precision(precision))
    except ValueError:
        return False
    return chip.bandwidth_tb_s is not None


def roofline_chips() -> tuple[Chip, ...]:
    """The chips of the table that have a bandwidth and a 16-bit rate."""
    return tuple(chip for chip in load_chips() if has_rates(chip, "bf16"))


def rounds_fp32(chip: Chip) -> bool:
    """Whether the chip has no fp32 products and rounds fp32 values to bf16 on its own."""
    return chip.name.startswith("TPU") and chip.fp32_tflops is None
