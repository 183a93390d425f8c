"""Loss scaling: lift small gradients into fp16's range, and take the factor off before the update.

How it works: by the chain rule, a scaled loss has scaled gradients. Before the optimizer steps they
are multiplied by 1 / scale, and if one was inf or NaN the step is skipped. The order of calls:

    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)  # only for who looks at the gradients; otherwise step does it
    clip_grad_norm_(parameters, 1.0)
    scaler.step(optimizer)  # of each optimizer; then, once:
    scaler.update()

fp32, bf16 and fp16 gradients work, but in fp16, unscaled in place, they lose again what the scale
had saved: unscale the fp32 gradients of `MasterWeights`. Left out: sparse gradients, optimizers
that need a closure, and a single kernel that checks and multiplies (here: one of each).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# From apex/amp/scaler.py, before it was removed on 2025-05-08, and from torch 2.13's GradScaler.
APEX: dict[str, Any] = {"scale": 2.0**16, "growth_interval": 2000, "largest": 2.0**24}
TORCH: dict[str, Any] = {"scale": 2.0**16, "growth_interval": 2000, "largest": None}
_FP32 = torch.finfo(torch.float32)  # the scale and its inverse must both be fp32 numbers


@torch.no_grad()
def unscale_and_check_(optimizer: Optimizer, loss_scale: float) -> dict[torch.device, Tensor]:
    """Multiply each gradient by 1 / loss_scale in place; returns the largest before, per device.

    It is inf or NaN if any gradient was, and stays where it is: reading it would stop the host.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None and p.grad.numel()]
    if not gradients:
        raise RuntimeError("This optimizer has no gradients: call scale(loss).backward() first.")
    if any(gradient.layout != torch.strided for gradient in gradients):
        raise ValueError("Sparse gradients are left out here: make the layer's gradient dense.")
    inverse, largest = 1 / loss_scale, {}
    for gradient in gradients:
        low, high = gradient.aminmax()  # in one pass; both are NaN if one value is
        highest = torch.maximum(high, -low)
        largest[gradient.device] = torch.maximum(highest, largest.get(gradient.device, highest))
        gradient.mul_(inverse)
    return largest


@dataclass
class _Check:
    """What one optimizer's gradients were like in this iteration."""

    largest: dict[torch.device, Tensor]
    was_stepped: bool = False

    @cached_property
    def overflowed(self) -> bool:
        """Whether a gradient was inf or NaN; waits once for each device."""
        return not all(math.isfinite(value) for value in self.largest.values())


class StaticScaler:
    """One scale for the whole run; a step with inf or NaN in its gradients is skipped."""

    def __init__(self, scale: float) -> None:
        if not _FP32.tiny <= scale <= _FP32.max:
            raise ValueError(f"The scale must be a positive number that fp32 holds, not {scale}.")
        self.loss_scale = _as_float32(scale)
        self.num_taken_steps = self.num_skipped_steps = 0
        self._checks: dict[Optimizer, _Check] = {}  # of this iteration only

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale, in fp32 if the loss has 16 bits: 2**16 is inf in fp16."""
        return loss * torch.tensor(self.loss_scale, dtype=torch.float32)

    def unscale_(self, optimizer: Optimizer) -> None:
        """Take the scale off this optimizer's gradients in place, and note whether one is inf."""
        if optimizer in self._checks:
            raise RuntimeError("Already unscaled: call unscale_ once, before step, then update().")
        self._checks[optimizer] = _Check(unscale_and_check_(optimizer, self.loss_scale))

    def step(self, optimizer: Optimizer) -> bool:
        """Step on unscaled gradients, or skip because of inf or NaN; returns whether it stepped."""
        if optimizer not in self._checks:
            self.unscale_(optimizer)
        check = self._checks[optimizer]
        if check.was_stepped:
            raise RuntimeError("This optimizer has stepped already: call update() after a step.")
        check.was_stepped = True
        if not check.overflowed:
            optimizer.step()
        self.num_taken_steps += not check.overflowed
        self.num_skipped_steps += check.overflowed
        return not check.overflowed

    def update(self) -> None:
        """End the iteration; inf in one optimizer lowers the one scale of all."""
        if not self._checks:
            raise RuntimeError("Nothing was unscaled since the last update(): call step first.")
        overflowed = any(check.overflowed for check in self._checks.values())
        self._checks = {}
        self._adapt(overflowed)

    def _adapt(self, overflowed: bool) -> None:
        """A static scale stays what it is."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, in plain numbers; to be saved after update()."""
        if self._checks:
            raise RuntimeError("The iteration is not over: save the scaler after update().")
        return {name: value for name, value in vars(self).items() if name != "_checks"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict() of the same kind of scaler, its constants included."""
        needed = vars(self).keys() - {"_checks"}
        if state.keys() != needed:
            raise ValueError(f"A {type(self).__name__} is restored from {sorted(needed)} only.")
        vars(self).update(state, _checks={})


class DynamicScaler(StaticScaler):
    """A scale found by trying: down after inf or NaN, up after a quiet window without them."""

    def __init__(
        self, scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, smallest: float | None = None, largest: float | None = None,
    ) -> None:
        super().__init__(scale)
        if not (smallest or 0.0) <= scale <= (largest or math.inf):
            raise ValueError(f"The scale {scale} must lie between {smallest} and {largest}.")
        if not growth_factor > 1 > backoff_factor > 0 or growth_interval < 1:
            raise ValueError("Give growth_factor > 1 > backoff_factor > 0, growth_interval >= 1.")
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval, self.quiet_iterations = growth_interval, 0
        self.smallest, self.largest = smallest, largest

    def _adapt(self, overflowed: bool) -> None:
        self.quiet_iterations = 0 if overflowed else self.quiet_iterations + 1
        if overflowed:
            self._multiply(self.backoff_factor)
        elif self.quiet_iterations >= self.growth_interval:
            self.quiet_iterations = 0
            self._multiply(self.growth_factor)

    def _multiply(self, factor: float) -> None:
        """Move within the limits; like torch's, the scale stays when it would become inf."""
        moved = max(_as_float32(self.loss_scale * factor), self.smallest or 0.0)
        moved = min(moved, self.largest or math.inf)
        if moved < _FP32.tiny:
            raise FloatingPointError("Gradients overflow at any scale: look for a cause elsewhere.")
        self.loss_scale = self.loss_scale if math.isinf(moved) else moved


def _as_float32(value: float) -> float:
    """The nearest fp32 number: torch keeps its scale in fp32, and so the two agree bit by bit."""
    return torch.tensor(value, dtype=torch.float32).item()
