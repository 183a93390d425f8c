"""How near a whole training step comes to the chip's peak: MFU of the capstone's GPT, by batch.

How it works: forward, backward and AdamW run on larger and larger batches until memory ends; the
best batch is tried once more on a GPU with forward and backward compiled. MFU counts model FLOPs,
none twice. The peak is the table's dense rate for the format (utils/data/chips.csv), or, on a CPU
and on a chip that the table lacks, the best matrix product measured here: the row says which.

Left out: checkpointing, and several GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from utils.config import PRESETS, GPTConfig
from utils.costs import mfu, training_flops
from utils.experiments.compiling import fresh_cache
from utils.experiments.fitting import give_back, survive
from utils.experiments.registry import Rows
from utils.hardware import find_chip
from utils.model import build_gpt, next_token_loss
from utils.timing import matmul_flops_per_s, time_step
from utils.trainer.speed import chip_of

CPU_CONFIG, CPU_BATCHES = PRESETS["laptop"], (4, 8, 16)
# GPT-2 small, its vocabulary rounded up to a multiple of 128 so that the last product is even.
GPU_CONFIG, GPU_BATCHES = GPTConfig(12, 12, 768, 1024, 50304), (8, 16, 32, 64)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Peak:
    """What the chip could do; `source` says who says so."""

    flops_per_s: float
    source: str


def capstone_sweep(device: str, repeats: int = 5) -> Rows:
    """One row for each batch that fits, and one for the best of them compiled."""
    is_cpu = device == "cpu"
    config, precision = (CPU_CONFIG, "fp32") if is_cpu else (GPU_CONFIG, "bf16")
    peak = peak_of(device, precision)
    rows: Rows = []
    for batch_size in CPU_BATCHES if is_cpu else GPU_BATCHES:
        row = survive(partial(_row, config, batch_size, device, precision, peak, repeats))
        if row is None:
            break
        rows.append(row)
        give_back()
    if rows and not is_cpu:  # on a CPU the experiment "compile" is enough
        best = max(rows, key=lambda row: row["tokens_per_s"])["batch_size"]
        rows += compiled_rows(config, best, device, precision, peak, repeats)
    return rows


def peak_of(device: str, precision: str) -> Peak:
    """The table's rate for this GPU, else the best product of two matrices here."""
    chip = None if device == "cpu" else chip_of(torch.cuda.get_device_name())
    try:
        if chip is not None:
            return Peak(find_chip(chip).peak_flops(precision), f"chips.csv, {chip}")
    except ValueError:  # the table has no rate for this format
        pass
    size = 1024 if device == "cpu" else 8192
    rate = matmul_flops_per_s(size, DTYPES[precision], device)
    return Peak(rate, f"best {size} x {size} product measured here")


class CapstoneStep:
    """A whole step: forward under autocast, backward, AdamW."""

    def __init__(
        self, config: GPTConfig, batch_size: int, device: str, precision: str, loss: Loss
    ) -> None:
        self.model, self.device, self.loss = build_gpt(config).to(device), device, loss
        self.dtype = DTYPES[precision]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=device != "cpu" or None)
        shape = (batch_size, config.context_length)
        self.tokens_BT = torch.randint(config.vocab_size, shape, device=device)

    def __call__(self) -> None:
        is_low = self.dtype != torch.float32
        with torch.autocast(self.device, torch.bfloat16, enabled=is_low):
            loss = self.loss(self.model, self.tokens_BT, self.tokens_BT)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def compiled_rows(
    config: GPTConfig, batch_size: int, device: str, precision: str, peak: Peak, repeats: int
) -> Rows:
    """The row of the compiled step, or none where it does not compile or fit."""
    compiled = torch.compile(next_token_loss, dynamic=False)
    measure = partial(_row, config, batch_size, device, precision, peak, repeats, compiled)
    with fresh_cache():
        try:
            row = survive(measure)
        except Exception:  # the experiment "compile" says why
            row = None
    return [row] if row else []


def _row(
    config: GPTConfig, batch_size: int, device: str, precision: str, peak: Peak, repeats: int,
    loss: Loss = next_token_loss,
) -> dict[str, object]:  # fmt: skip
    step = CapstoneStep(config, batch_size, device, precision, loss)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds = time_step(step, repeats).median_s
    flops = training_flops(config, batch_size, config.context_length)
    return {
        "precision": precision,
        "is_compiled": loss is not next_token_loss,
        "batch_size": batch_size,
        "seconds": seconds,
        "tokens_per_s": batch_size * config.context_length / seconds,
        "mfu": mfu(flops, seconds, peak.flops_per_s),
        "peak_flops_per_s": peak.flops_per_s,
        "peak_source": peak.source,
        "peak_bytes": None if device == "cpu" else torch.cuda.max_memory_allocated(),
    }
