"""How fast matrix products and a GPT step run in each precision, on whatever device there is.

How it works: the variants run in turn on one device and give one row each: precision, size, median
seconds, FLOP/s, and on a GPU peak bytes. "fp32" is true fp32: on a GPU TF32 is switched off for it,
and "tf32" switches it on. FP8 goes through torch's scaled product where the chip has it.
A CPU without 16-bit instructions is some fifty times slower in 16 bits, so it gets smaller sizes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from utils.config import GPTConfig
from utils.costs import training_flops
from utils.model import build_gpt, next_token_loss
from utils.timing import compare

CPU_SIZES, GPU_SIZES = (64, 128, 256, 512), (256, 512, 1024, 2048, 4096, 8192)
CPU_STEP = (GPTConfig(2, 2, 64, 64, 256), 4)
GPU_STEP = (GPTConfig(12, 12, 768, 1024, 50304), 8)
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
DTYPES |= {"fp16": torch.float16}


def precisions(device: str) -> list[str]:
    """What this device can be asked to compute in."""
    if device == "cpu":
        return ["fp32", "bf16", "fp16"]
    capability = torch.cuda.get_device_capability()
    names = ["fp32", "fp16"]
    if capability >= (8, 0):
        names += ["tf32", "bf16"]
    return names + ["fp8"] * (capability >= (8, 9))


def matmul_sweep(device: str, sizes: tuple[int, ...] = (), repeats: int = 5) -> list[dict]:
    """One row per size and precision: median seconds and FLOP/s of a square product."""
    rows = []
    for size in sizes or (CPU_SIZES if device == "cpu" else GPU_SIZES):
        products = {name: _product(name, size, device) for name in precisions(device)}
        timed = compare(products, repeats)
        for name, timing in timed.timings.items():
            seconds = timing.median_s
            rows.append(
                {
                    "precision": name,
                    "size": size,
                    "seconds": seconds,
                    "flops_per_s": 2 * size**3 / seconds,
                }
            )
    return rows


def _product(precision: str, size: int, device: str) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device) for _ in range(2))
    if precision == "fp8":
        one = torch.ones((), device=device)
        left8, right8 = left.to(torch.float8_e4m3fn), right.t().contiguous().t()
        right8 = right8.to(torch.float8_e4m3fn)
        return lambda: torch._scaled_mm(left8, right8, one, one, out_dtype=torch.bfloat16)
    low_left, low_right = left.to(DTYPES[precision]), right.to(DTYPES[precision])

    def product() -> Tensor:
        with tf32(precision == "tf32"):
            return low_left @ low_right

    return product


def step_sweep(device: str, repeats: int = 5) -> list[dict]:
    """One row per precision of a GPT step (forward and backward, autocast for 16 bits)."""
    config, batch_size = CPU_STEP if device == "cpu" else GPU_STEP
    model = build_gpt(config).to(device)
    tokens_BT = torch.randint(config.vocab_size, (batch_size, config.context_length), device=device)
    names = [name for name in precisions(device) if name != "fp8"]
    steps = {name: _step(name, model, tokens_BT, device) for name in names}
    timed = compare(steps, repeats)
    flops = training_flops(config, batch_size, config.context_length)
    return [
        {
            "precision": name,
            "seconds": timed.timings[name].median_s,
            "flops_per_s": flops / timed.timings[name].median_s,
            "peak_bytes": _gpu_peak_bytes(steps[name], device),
        }
        for name in names
    ]


def _step(name: str, model: Any, tokens_BT: Tensor, device: str) -> Callable[[], None]:
    is_low = DTYPES[name] != torch.float32

    def step() -> None:
        context = torch.autocast(device, DTYPES[name]) if is_low else nullcontext()
        with tf32(name == "tf32"), context:
            loss = next_token_loss(model, tokens_BT, tokens_BT)
        with tf32(name == "tf32"):
            loss.backward()
        model.zero_grad()

    return step


def _gpu_peak_bytes(step: Callable[[], None], device: str) -> int | None:
    if device == "cpu":
        return None  # the memory meter gives it exactly, without a stopwatch
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Matrix products of fp32 tensors through TF32, or truly in fp32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
