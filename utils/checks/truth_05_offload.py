"""Lab 05, offloading: steps of a small GPT through someone's hooks, plain and under the meter."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from utils.checks.helpers import require
from utils.checks.truth_05_blocks import SavedStorage, Vault, reference_hooks, saved_storages
from utils.config import GPTConfig
from utils.memory import MemoryMeter
from utils.memory_report import MemoryReport
from utils.model import GPT, build_gpt, next_token_loss

CONFIG = GPTConfig(2, 4, 32, 32, vocab_size=64)  # fused attention saves views into one storage


def small_model(dtype: torch.dtype) -> tuple[GPT, Callable[[], Tensor]]:
    """A model with gradients, and its forward pass to the loss."""
    model = build_gpt(CONFIG).to(dtype)
    generator = torch.Generator().manual_seed(1)
    shape = 2, CONFIG.context_length
    batch = [torch.randint(CONFIG.vocab_size, shape, generator=generator) for _ in range(2)]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model, lambda: next_token_loss(model, *batch)


@cache
def plain_step(dtype: torch.dtype) -> tuple[list[SavedStorage], list[Tensor]]:
    """What a step saves, and the gradients after two of them."""
    model, forward = small_model(dtype)
    saved = saved_storages(model, forward)
    for _ in range(2):
        forward().backward()
    return saved, [parameter.grad for parameter in model.parameters()]


def hooks_of(answer: Callable, store: Vault, model: GPT, limit: int) -> tuple[Callable, Callable]:
    """The answer's pack and unpack."""
    hooks = answer(store, model, limit)
    is_pair = isinstance(hooks, (tuple, list)) and len(hooks) == 2 and all(map(callable, hooks))
    require(is_pair, "Return two functions, pack and unpack", got=hooks)
    return hooks


@dataclass(frozen=True)
class Measured:
    """Two steps: the store, what the meter saw, and how many blocks were held after backward."""

    store: Vault
    report: MemoryReport
    num_left: int


def measure(answer: Callable, dtype: torch.dtype, limit: int) -> Measured:
    """Two steps under the meter; the hooks themselves outlive both."""
    model, forward = small_model(dtype)
    store = Vault()
    with MemoryMeter(model) as meter:
        pack, unpack = hooks_of(answer, store, model, limit)
        meter.mark("start")
        for _ in range(2):
            with saved_tensors_hooks(pack, unpack):
                loss = forward()
            meter.mark("kept")
            loss.backward()
            del loss
        meter.mark("end")
        num_left = store.num_tickets()
    return Measured(store, meter.report(), num_left)


@cache
def reference(dtype: torch.dtype, limit: int) -> Measured:
    """The same with hooks that do what was asked for."""
    return measure(reference_hooks, dtype, limit)


def forward_peak(report: MemoryReport) -> int:
    """The highest total before the first backward."""
    end = next(position for name, position in report.marks if name == "kept")
    return int(report.total[:end].max())
