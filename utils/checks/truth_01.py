"""What lab 01's judges compare with: each figure is read off the meter, on a model built here."""

from dataclasses import replace
from functools import cache

import torch

from utils.config import GPTConfig
from utils.memory import MemoryMeter, measure_memory
from utils.model import build_gpt, next_token_loss
from utils.saved import saved_bytes


def _batch(config: GPTConfig, batch_size: int, num_tokens: int = 0) -> tuple:
    shape = (batch_size, num_tokens or config.context_length)
    return torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)


@cache
def held_when_frozen(config: GPTConfig, num_trainable: int) -> tuple[int, int]:
    """(bytes held after a step, trainable parameters) with all but the last blocks frozen."""
    model = build_gpt(config)
    trainable = [p for block in model.blocks[-num_trainable:] for p in block.parameters()]
    model.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)
    adam = torch.optim.AdamW(trainable)
    with MemoryMeter(model, adam) as meter:
        next_token_loss(model, *_batch(config, 1)).backward()
        adam.step()
        meter.mark("end")
    held = meter.report().at_mark("end")
    kept = held["parameters"] + held["gradients"] + held["optimizer state"]
    return kept, sum(p.numel() for p in trainable)


@cache
def peak_when_accumulating(config: GPTConfig, batch_size: int) -> int:
    """Peak bytes of the second micro-batch of a step: gradients of the first are there."""
    model = build_gpt(config)
    adam = torch.optim.AdamW(model.parameters())
    batch = _batch(config, batch_size)
    for _ in range(2):
        adam.zero_grad()
        next_token_loss(model, *batch).backward()
        adam.step()

    def micro_batch() -> None:
        next_token_loss(model, *batch).backward()

    return measure_memory(micro_batch, model, adam).peak_bytes


@cache
def peak_of_step(config: GPTConfig, batch_size: int) -> int:
    """Peak bytes of a whole fp32 Adam step, in the steady state."""
    model = build_gpt(config)
    adam = torch.optim.AdamW(model.parameters())
    batch = _batch(config, batch_size)

    def step() -> None:
        next_token_loss(model, *batch).backward()
        adam.step()
        adam.zero_grad()

    step()
    return measure_memory(step, model, adam).peak_bytes


@cache
def dropout_bytes(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """Saved bytes with dropout minus those without."""
    batch = _batch(config, batch_size, num_tokens)
    models = [build_gpt(c) for c in (config, replace(config, dropout=0.0))]
    with_masks, without = (
        saved_bytes(model, lambda model=model: next_token_loss(model, *batch)) for model in models
    )
    return with_masks - without
