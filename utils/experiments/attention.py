"""Fused attention against the textbook's: bytes and seconds of a GPT's forward and backward.

How it works: both attentions compute the same numbers. "explicit" writes the T x T matrix of every
head to memory, several times; "fused" is one kernel that goes through it in tiles and never stores
it. The same number of tokens is cut into longer and longer sequences, so that only attention
changes. On a CPU the peak is the memory meter's, which is exact; on a GPU the allocator's, in bf16.

Left out: attention over a window, and several kernels for one formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from utils.config import GPTConfig
from utils.experiments.fitting import give_back, peak_bytes, survive
from utils.experiments.registry import Rows
from utils.model import GPT, build_gpt, next_token_loss
from utils.timing import Comparison, compare

CPU_CONFIG = GPTConfig(num_layers=2, num_heads=4, model_dim=64)
CPU_LENGTHS, CPU_TOKENS = (128, 256, 512, 1024), 1024
GPU_CONFIG = GPTConfig(num_layers=12, num_heads=12, model_dim=768)
GPU_LENGTHS, GPU_TOKENS = (512, 1024, 2048, 4096, 8192), 16_384
ATTENTIONS = ("explicit", "fused")


def attention_sweep(device: str, repeats: int = 5) -> Rows:
    """Two rows for each length of a sequence; None in place of what ran out of memory."""
    is_cpu = device == "cpu"
    config = CPU_CONFIG if is_cpu else GPU_CONFIG
    num_tokens = CPU_TOKENS if is_cpu else GPU_TOKENS
    rows = []
    for length in CPU_LENGTHS if is_cpu else GPU_LENGTHS:
        pair = attention_pair(config, length, num_tokens, device)
        peaks = {name: survive(partial(_peak_bytes, step, device)) for name, step in pair.items()}
        fitting = {name: step for name, step in pair.items() if peaks[name]}
        timed = survive(partial(compare, fitting, repeats)) if fitting else None
        rows += [_row(name, length, num_tokens, peaks[name], timed) for name in ATTENTIONS]
        del pair, fitting
        give_back()
    return rows


class AttentionStep:
    """Forward and backward of a GPT with one attention; gradients are kept, and so counted."""

    def __init__(self, config: GPTConfig, batch_size: int, device: str) -> None:
        self.device, self.model = device, build_gpt(config).to(device)
        shape = (batch_size, config.context_length)
        self.tokens_BT = torch.randint(config.vocab_size, shape, device=device)

    def __call__(self) -> None:
        self.model.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
            loss = next_token_loss(self.model, self.tokens_BT, self.tokens_BT)
        loss.backward()


def attention_pair(
    config: GPTConfig, length: int, num_tokens: int, device: str = "cpu"
) -> dict[str, AttentionStep]:
    """The two steps on `num_tokens` tokens in sequences of `length`."""
    cut = replace(config, context_length=length)
    return {
        name: AttentionStep(replace(cut, attention=name), max(1, num_tokens // length), device)
        for name in ATTENTIONS
    }


def compare_pair(pair: dict[str, Callable[[], None]], repeats: int = 5) -> Comparison:
    """Both in turn."""
    return compare(pair, repeats)


def step_peak_bytes(step: AttentionStep) -> int:
    """Peak of a step on a CPU, weights and gradients included."""
    return _peak_bytes(step, "cpu")


def _peak_bytes(step: AttentionStep, device: str) -> int:
    give_back()
    others = 0 if device == "cpu" else torch.cuda.memory_allocated() - _held_bytes(step.model)
    return peak_bytes(step, step.model, device) - others


def _held_bytes(model: GPT) -> int:
    """Weights, buffers and the gradients that are there."""
    tensors = [*model.parameters(), *model.buffers()]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return sum(tensor.nbytes for tensor in (*tensors, *gradients))


def _row(
    name: str, length: int, num_tokens: int, peak: int | None, timed: Comparison | None
) -> dict[str, object]:
    timing = timed.timings.get(name) if timed else None
    return {
        "attention": name,
        "context_length": length,
        "num_tokens": num_tokens,
        "seconds": timing.median_s if timing else None,
        "peak_bytes": peak,
    }
