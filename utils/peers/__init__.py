"""One interface for sharded training, ours and the libraries', so that one loop compares them.

How it works: an adapter of a few lines (`utils.peers.ours`, `utils.peers.deepspeed_zero`,
`utils.peers.fsdp2`) gives a training system the four methods of `System`; `utils.peers.harness`
trains the same GPT from the same seed on the same batches under any of them, and returns losses,
weights, bytes held and bytes sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.config import GPTConfig

SMALL = GPTConfig(num_layers=4, num_heads=4, model_dim=64, context_length=64, vocab_size=256)


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, whoever does it: everything that must be equal for runs to be comparable."""

    config: GPTConfig = SMALL
    batch_size: int = 8  # sequences in a step, of all ranks together
    num_steps: int = 5
    num_micro_batches: int = 1
    learning_rate: float = 1e-3
    seed: int = 0
    low_precision: bool = False  # bf16 weights, gradients and messages; fp32 master weights
    max_norm: float | None = None  # clip gradients to this global norm


class System(Protocol):
    """A model and its optimizer on one rank, spread over ranks in some way."""

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """Forward and backward on this rank's part of one micro-batch; its mean loss.

        `is_last` is True for the last micro-batch of a step. Gradients of a step are the mean over
        its micro-batches and ranks.
        """

    def step(self) -> None:
        """Update the weights and leave no gradients."""

    def whole_parameters(self) -> list[Tensor]:
        """All parameters in fp32, in the model's order, on every rank; all ranks call it."""

    def owned(self) -> dict[str, list[Any]]:
        """What this rank holds after backward, by category of `utils.memory.MemoryMeter`:

        "parameters", "gradients" and "optimizer state", each a list of tensors; fp32 masters of
        16-bit weights are "optimizer state", as in the ZeRO paper.
        """


def loss_of(model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats, in fp32 also when the model computes in 16 bits."""
    logits_BTV = model(tokens_BT).float()
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def clip_and_update(
    model: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float | None
) -> None:
    """Clip by the global norm unless that is None, update, and drop the gradients."""
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()


def held_by(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, list[Any]]:
    """`System.owned` where a plain optimizer updates the model's own parameters."""
    states = [value for state in optimizer.state.values() for value in state.values()]
    parameters = list(model.parameters())
    gradients = [each.grad for each in parameters if each.grad is not None]
    return {"parameters": parameters, "gradients": gradients, "optimizer state": states}


MakeSystem = Callable[[nn.Module, int, int, TrainingJob], System]
