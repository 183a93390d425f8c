"""Claims 3 to 8: what 16 bits save, how fast they can be, and what they cost in accuracy.

How it works: bytes and FLOPs are exact (`utils.predict_autocast`, torch's counter), ceilings come
from the chip table, and four short runs train one small model at APEX's levels.
Left out: every stopwatch; seconds of 16-bit products belong into marked outputs.
"""

from __future__ import annotations

import math
from datetime import date
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.claims import ARTICLE, Claim
from utils.config import PRESETS, GPTConfig
from utils.corpus import load_corpus
from utils.costs import RECIPES
from utils.evidence.finding import Finding, Span, by_cases, by_range
from utils.hardware import load_chips
from utils.model import build_gpt, next_token_loss
from utils.predict import saved_activation_bytes
from utils.predict_autocast import autocast_saved_bytes
from utils.roofline import speed_up
from utils.techniques.autocast import ManualAutocast
from utils.techniques.opt_levels import initialize

# NVIDIA/apex: commit 58d6836 deprecates amp, commit cb65b8ed removes it. Read on READ_ON.
APEX_DEPRECATED, APEX_REMOVED = date(2022, 10, 10), date(2025, 5, 8)
READ_ON = date(2026, 11, 23)
BATCHES = (("laptop", 8), ("gpt2-124m", 8), ("gpt2-124m", 1), ("gpt2-1.5b", 1))
TPU_STEPS = (("gpt2-124m", 8), ("gpt2-1.5b", 8), ("llama2-7b-shape", 1))
LEVELS = {"O1": ("O1", None), "O2": ("O2", None), "O2, scale 1": ("O2", 1.0), "O3": ("O3", None)}
NUM_STEPS, NUM_MICRO_BATCHES, CLOSE = 40, 4096, 0.1  # nats


def saved_percent() -> dict[str, float]:
    """Percent of the bytes saved for backward that autocast takes away; below 0 it adds some."""
    return {
        f"{name}, {size} sequence{'s' * (size > 1)}": 100
        * (
            1
            - autocast_saved_bytes(PRESETS[name], size, PRESETS[name].context_length)
            / saved_activation_bytes(PRESETS[name], size, PRESETS[name].context_length)
        )
        for name, size in BATCHES
    }


def bytes_held(claim: Claim) -> Finding:
    """What stays does not shrink; what is saved for backward does, if the batch is large enough."""
    mixed = [each.bytes_per_parameter for each in RECIPES if each.master_bytes]
    plain = next(each.bytes_per_parameter for each in RECIPES if each.name == "fp32, Adam")
    saved = saved_percent()
    held, freed = Span.of(*mixed), Span.of(*saved.values())
    return by_cases(
        f"held: {held.text()} bytes a parameter, in fp32 {plain}; saved for backward: "
        f"{freed.high:.0f} % less to {-freed.low:.0f} % more",
        {"weights, gradients and Adam": held.low < plain}
        | {f"saved for backward, {name}": percent > 0 for name, percent in saved.items()},
        freed,
    )


def count_flops(is_low: bool) -> int:
    """Forward and backward of a small GPT by torch's counter, in fp32 or under autocast."""
    model = build_gpt(GPTConfig(2, 2, 64, 32, attention="explicit"))
    tokens_BT = torch.zeros(2, 32, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        with ManualAutocast(enabled=is_low):
            loss = next_token_loss(model, tokens_BT, tokens_BT)
        loss.backward()
    return counter.get_total_flops()


def same_flops(claim: Claim) -> Finding:
    """torch's counter in both precisions."""
    full, low = count_flops(False), count_flops(True)
    return by_cases(
        f"a step of a small GPT: {full:,} FLOPs in fp32, {low:,} under autocast",
        {"fewer FLOPs": low < full},
    )


def ceilings() -> dict[str, float]:
    """Peak rate in 16 bits over that in fp32, and over TF32 where a chip's TF32 is the faster."""
    found = {}
    for chip in load_chips():
        low = chip.bf16_tflops or chip.fp16_tflops
        if low and chip.fp32_tflops:
            found[f"{chip.name} over fp32"] = low / chip.fp32_tflops
        if low and chip.fp32_tflops and (chip.tf32_tflops or 0) > chip.fp32_tflops:
            found[f"{chip.name} over TF32"] = low / chip.tf32_tflops
    return found


def gpu_ceilings(claim: Claim) -> Finding:
    """No chip can gain more than its peaks allow; who reaches the claim at all?"""
    found, wanted = ceilings(), claim.claimed.high
    over_fp32 = Span.of(*(v for name, v in found.items() if name.endswith("fp32")))
    over_tf32 = Span.of(*(v for name, v in found.items() if name.endswith("TF32")))
    return by_cases(
        f"ceilings by peak rates: {over_fp32.text('x')} over true fp32, {over_tf32.text('x')} over "
        f"TF32; published {claim.sourced.text('x')} on a V100",
        {name: factor >= wanted for name, factor in found.items()},
        Span.of(over_tf32.low, over_fp32.high),
    )


def tpu_bytes(claim: Claim) -> Finding:
    """A TPU multiplies in bf16 anyway: products gain nothing, bytes moved halve at best."""
    chips = [chip for chip in load_chips() if chip.name.startswith("TPU")]
    steps = [(PRESETS[name], size) for name, size in TPU_STEPS]
    gains = Span.of(*(speed_up(chip, *step) for chip in chips for step in steps))
    return by_range(
        f"published {claim.sourced.text('x')}; products are in bf16 already, so by the roofline a "
        f"step gains {gains.text('x')} from the bytes it moves",
        claim.claimed,
        claim.sourced,
        gains,
    )


@lru_cache
def final_losses(num_steps: int = NUM_STEPS) -> dict[str, float]:
    """Mean of the last ten losses of one small GPT at each level, real fp16, the same batches."""
    all_levels = {"O0": ("O0", None)} | LEVELS
    return {name: _final(*level, num_steps) for name, level in all_levels.items()}


def _final(level: str, scale: float | None, num_steps: int) -> float:
    corpus, losses = load_corpus(), []
    model = build_gpt(GPTConfig(2, 2, 32, 32, attention="explicit"))
    precision = initialize(model, lambda each: torch.optim.AdamW(each, 3e-3), level, scale)
    for number in range(num_steps):
        batch = corpus.batch(number, 8, 32)
        # As one of so many micro-batches, whose gradients are that much smaller.
        loss = precision.step(lambda m, b=batch: next_token_loss(m, *b) / NUM_MICRO_BATCHES)
        losses.append(loss)
    return NUM_MICRO_BATCHES * sum(losses[-10:]) / 10


def levels(claim: Claim) -> Finding:
    """With masters and a scale fp16 follows fp32; without, it does not."""
    losses = final_losses()
    is_close = {name: abs(losses[name] - losses["O0"]) < CLOSE for name in LEVELS}
    return by_cases(
        f"{NUM_STEPS} steps in fp16, within {CLOSE} nats of fp32: "
        + ", ".join(f"{name} {'yes' if close else 'no'}" for name, close in is_close.items())
        + f"; O3 {'finite' if math.isfinite(losses['O3']) else 'not a number'}",
        is_close,
    )


def apex_dates(claim: Claim) -> Finding:
    """What APEX could do on the article's day, and today."""
    return by_cases(
        f"apex.amp: deprecated {APEX_DEPRECATED}, {(ARTICLE - APEX_DEPRECATED).days // 30} months "
        f"before the article; removed {APEX_REMOVED}",
        {
            f"on {ARTICLE}": ARTICLE < APEX_REMOVED,
            f"as read on {READ_ON}": READ_ON < APEX_REMOVED,
        },
    )
