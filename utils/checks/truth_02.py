"""What lab 02's judges compare with: bytes read off autograd, casts counted as torch makes them."""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from utils.config import GPTConfig
from utils.model import build_gpt, next_token_loss
from utils.saved import saved_bytes
from utils.techniques.autocast import ManualAutocast

LOW = torch.bfloat16
NUM_STEPS, NUM_MICRO_BATCHES = 2, 3


class GatedFeedForward(nn.Module):
    """Llama's feed-forward layer: one product decides how much of another one passes."""

    def __init__(self, model_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(model_dim, hidden_dim, bias=False)
        self.value = nn.Linear(model_dim, hidden_dim, bias=False)
        self.narrow = nn.Linear(hidden_dim, model_dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """x_BTD -> y_BTD, before the residual is added."""
        return self.narrow(F.silu(self.gate(x_BTD)) * self.value(x_BTD))


@cache
def gated_layer_bytes(tokens: int, model_dim: int, hidden_dim: int, num_micro_batches: int) -> int:
    """Bytes that micro-batches of one autocast context keep; their inputs want gradients."""
    layer = GatedFeedForward(model_dim, hidden_dim)

    def forward() -> Tensor:
        leaf = torch.zeros(1, tokens, model_dim, requires_grad=True)
        with ManualAutocast():
            # Not the leaf itself: autocast would take it for a weight and keep its copy.
            return sum(layer(leaf + 1) for _ in range(num_micro_batches))

    return saved_bytes(layer, forward)


@cache
def step_saved_bytes(config: GPTConfig, batch_size: int, num_tokens: int, autocast: bool) -> int:
    """Bytes that a forward pass keeps for backward, in fp32 or under the CPU's autocast."""
    model = build_gpt(config)
    batch = [torch.zeros(batch_size, num_tokens, dtype=torch.long) for _ in range(2)]

    def forward() -> Tensor:
        with ManualAutocast(enabled=autocast):
            return next_token_loss(model, *batch)

    return saved_bytes(model, forward)


def share_saved(config: GPTConfig, batch_size: int, num_tokens: int) -> float:
    """The share of the saved bytes that autocast takes away, measured; negative if it adds."""
    low, full = (step_saved_bytes(config, batch_size, num_tokens, on) for on in (True, False))
    return 1 - low / full


@cache
def largest_share(config: GPTConfig, num_tokens: int) -> float:
    """What the share tends to as the batch grows: bytes per further sequence, measured."""
    low, full = (
        step_saved_bytes(config, 2, num_tokens, on) - step_saved_bytes(config, 1, num_tokens, on)
        for on in (True, False)
    )
    return 1 - low / full


@cache
def least_batch(config: GPTConfig, num_tokens: int, share: float) -> int:
    """The first batch size with at least `share` fewer bytes, measured size by size; 0 if none."""
    if share >= largest_share(config, num_tokens):
        return 0
    batch_size = 1
    while share_saved(config, batch_size, num_tokens) < share:
        batch_size += 1
    return batch_size


class CastWitness(TorchDispatchMode):
    """Sees every cast into `low_dtype`: from which storage, and whether the copy still lives."""

    def __init__(self, low_dtype: torch.dtype = LOW) -> None:
        super().__init__()
        self.low_dtype = low_dtype
        self.sources: list[int] = []
        self._copies: list[weakref.ref] = []

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation and note it down if it is a cast."""
        result = func(*args, **(kwargs or {}))
        casts = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        if func.overloadpacket in casts and result.dtype == self.low_dtype:
            source = args[0] if func.overloadpacket is casts[0] else args[1]
            if source.dtype != self.low_dtype:
                self.sources.append(source.untyped_storage().data_ptr())
                self._copies.append(weakref.ref(result.untyped_storage()))
        return result

    def num_casts_of(self, tensors: Iterable[Tensor]) -> int:
        """How often these tensors were cast; they must have lived all the time."""
        addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return sum(source in addresses for source in self.sources)

    def live_bytes(self) -> int:
        """Bytes of the copies that something still holds."""
        alive = {copy() for copy in self._copies} - {None}
        return sum(storage.nbytes() for storage in alive)


@dataclass
class CastRun:
    """What a training run of two steps of three micro-batches did with someone's casts."""

    num_weights: int
    copy_bytes: int  # of one 16-bit copy of each weight
    gradients: list[Tensor | None] = field(default_factory=list)  # by micro-batch and weight
    num_casts: list[int] = field(default_factory=list)  # of weights, by step
    bytes_before_step: list[int] = field(default_factory=list)  # of all living copies
    bytes_after_step: list[int] = field(default_factory=list)


def train_with(
    make_cast: Callable, make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> CastRun:
    """Train two weights of one shape through the casts that `make_cast(optimizer, LOW)` gives."""
    generator = torch.Generator().manual_seed(2)
    weights = [nn.Parameter(torch.randn(4, 4, generator=generator)) for _ in range(2)]
    inputs = torch.randn(NUM_STEPS, NUM_MICRO_BATCHES, 3, 4, generator=generator)
    optimizer = make_optimizer(weights)
    cast = make_cast(optimizer, LOW)
    run = CastRun(len(weights), sum(2 * weight.numel() for weight in weights))
    for micro_batches in inputs:
        with CastWitness() as witness:
            for x in micro_batches:
                _micro_batch(cast, x.clone(), weights)
                run.gradients += [w.grad if w.grad is None else w.grad.clone() for w in weights]
        run.num_casts.append(witness.num_casts_of(weights))
        run.bytes_before_step.append(witness.live_bytes())
        optimizer.step()
        optimizer.zero_grad()
        run.bytes_after_step.append(witness.live_bytes())
    return run


def _micro_batch(cast: Callable, x: Tensor, weights: list[Tensor]) -> None:
    """Forward and backward; nothing of it stays alive but the gradients."""
    for weight in weights:
        x = torch.tanh((cast(x) @ cast(weight)).float())
    x.square().sum().backward()
