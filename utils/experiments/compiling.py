"""torch.compile on a GPT's step: what it saves at each step, and how many steps pay it back.

How it works: the same forward and backward runs as it is and compiled, in turn. The first compiled
step writes and compiles kernels, into a folder of its own that starts empty, so that every
recording pays in full; later steps may be faster, for neighbouring element-wise operations become
one kernel that reads and writes memory once. The loss of both is compared.

On a CPU the kernels are C++ and need a compiler; where something is missing, the row says what.
Left out: kernels kept from an earlier run, and "reduce-overhead" and "max-autotune".
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from utils.config import PRESETS, GPTConfig
from utils.experiments.registry import SCRATCH, Rows
from utils.model import build_gpt, next_token_loss
from utils.timing import compare

CPU_JOBS = {"laptop GPT": (PRESETS["laptop"], 8)}
GPU_JOBS = {"GPT-2 124M": (GPTConfig(12, 12, 768, 1024, 50304), 8)}
CACHE = "TORCHINDUCTOR_CACHE_DIR"
SAME_LOSS = 1e-3  # in fp32; in bf16 ten times as much


def compile_sweep(device: str, repeats: int = 9) -> Rows:
    """One row a model."""
    jobs = CPU_JOBS if device == "cpu" else GPU_JOBS
    return [
        compile_row(name, config, batch_size, device, repeats)
        for name, (config, batch_size) in jobs.items()
    ]


def compile_row(
    name: str, config: GPTConfig, batch_size: int, device: str, repeats: int
) -> dict[str, object]:
    """Seconds to compile, seconds of a step both ways, or the problem."""
    step = _Step(config, batch_size, device, next_token_loss)
    row: dict[str, object] = dict.fromkeys(
        ("compiled_s", "compile_s", "low_ratio", "ratio", "high_ratio", "problem")
    )
    with fresh_cache():
        compiled = _Step(config, batch_size, device, torch.compile(next_token_loss, dynamic=False))
        compile_s, row["problem"] = try_compiling(step, compiled, device)
        variants = {"eager": step} | ({} if row["problem"] else {"compiled": compiled})
        timed = compare(variants, repeats)
    row = {"model": name, "batch_size": batch_size, **row}
    row["eager_s"] = timed.timings["eager"].median_s
    if not row["problem"]:
        ratios = sorted(timed.ratios("compiled", "eager"))
        row["compiled_s"] = timed.timings["compiled"].median_s
        row["compile_s"] = max(compile_s - row["compiled_s"], 1e-9)
        row["low_ratio"], row["high_ratio"] = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
        row["ratio"] = timed.ratio("compiled", "eager")
    return row


class _Step:
    """Forward and backward; a call returns the loss."""

    def __init__(
        self, config: GPTConfig, batch_size: int, device: str, loss_of: Callable[..., Tensor]
    ) -> None:
        self.model, self.device = build_gpt(config).to(device), device
        self.loss_of = loss_of
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, config.context_length)
        self.tokens_BT = torch.randint(config.vocab_size, shape, generator=generator).to(device)

    def __call__(self) -> Tensor:
        self.model.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
            loss = self.loss_of(self.model, self.tokens_BT, self.tokens_BT)
        loss.backward()
        return loss.detach()


def try_compiling(eager: _Step, compiled: _Step, device: str) -> tuple[float, str | None]:
    """Seconds of the first compiled step, and None or why there is none that can be used."""
    if device == "cpu" and (missing := missing_compiler()):
        return 0.0, missing
    start_s = time.perf_counter()
    try:
        loss = compiled().item()
    except Exception as error:  # whatever a compiler, a Python or a driver does not like
        words = " ".join(str(error).split())[:160]
        return 0.0, f"it did not compile ({type(error).__name__}: {words})"
    seconds = time.perf_counter() - start_s
    gap = abs(loss - eager().item())
    if gap > SAME_LOSS * (1 if device == "cpu" else 10):
        return 0.0, f"the compiled loss is off by {gap:.1e}"
    return seconds, None


def missing_compiler() -> str | None:
    """Why kernels for a CPU cannot be built here, as far as a look tells."""
    if sys.platform == "win32":
        return "it is not tried on Windows"
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if not any(name and shutil.which(name) for name in names):
        return "there is no C++ compiler (g++ or clang++)"
    return None


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Compiled kernels go to an empty folder, which is gone afterwards."""
    before, scratch = os.environ.get(CACHE), os.environ.get(SCRATCH)
    with tempfile.TemporaryDirectory(
        prefix="course-compile-", dir=scratch, ignore_cleanup_errors=True
    ) as path:
        os.environ[CACHE] = path
        torch._dynamo.reset()
        try:
            yield
        finally:
            torch._dynamo.reset()
            if before is None:
                del os.environ[CACHE]
            else:
                os.environ[CACHE] = before


def steps_to_pay_back(row: dict) -> float | None:
    """After how many steps the compiled run is ahead; None if it never is, or is not known."""
    if row["compiled_s"] is None or row["high_ratio"] >= 1:
        return None
    return row["compile_s"] / (row["eager_s"] - row["compiled_s"])
