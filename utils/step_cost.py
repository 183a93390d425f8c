"""What one forward and backward pass costs, apart from seconds: kept bytes, peak bytes, FLOPs.

How it works: weights, their gradients and the batch are counted before the pass starts and taken
off, so two passes over the same model differ by what they keep and by what they run again. The
figures are exact and the same in every run.

Left out: the optimizer, except in `adam_step_peak_bytes`, which measures whole training steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from utils.config import GPTConfig
from utils.memory import MemoryMeter, measure_memory
from utils.model import GPT, build_gpt, next_token_loss
from utils.techniques.segments import Plan, checkpointed

COST_HEADERS = ("plan", "kept bytes", "saved", "peak bytes", "saved", "FLOPs added")


class StepCost(NamedTuple):
    """Bytes above what was there before the pass."""

    kept_bytes: int  # between forward and backward
    peak_bytes: int
    flops: int

    def kept_saved(self, base: "StepCost") -> float:
        """Share of the kept bytes of `base` that this pass does without."""
        return 1 - self.kept_bytes / base.kept_bytes

    def row(self, name: str, base: "StepCost") -> tuple[object, ...]:
        """A row under COST_HEADERS: this cost, and how it compares with `base`."""
        kept, peak = self.kept_saved(base), 1 - self.peak_bytes / base.peak_bytes
        added = self.flops / base.flops - 1
        return name, self.kept_bytes, f"{kept:.1%}", self.peak_bytes, f"{peak:.1%}", f"{added:.1%}"


def step_cost(forward: Callable[[], Tensor], model: nn.Module, *batch: Tensor) -> StepCost:
    """Cost of `forward().backward()`, which runs three times; gradients add up in `.grad`."""
    forward().backward()
    with MemoryMeter(model) as meter:
        meter.label("temporary", *batch)
        meter.mark("start")
        loss = forward()
        meter.mark("kept")
        loss.backward()
    with FlopCounterMode(display=False) as counter:
        forward().backward()
    report = meter.report()
    start, kept = (sum(report.at_mark(name).values()) for name in ("start", "kept"))
    return StepCost(kept - start, report.peak_bytes - start, counter.get_total_flops())


def plan_cost(model: GPT, plan: Plan, tokens_BT: Tensor, targets_BT: Tensor) -> StepCost:
    """Cost of a pass of a GPT whose blocks run by `plan`."""

    def forward() -> Tensor:
        with checkpointed(model, plan):
            return next_token_loss(model, tokens_BT, targets_BT)

    return step_cost(forward, model, tokens_BT, targets_BT)


def gradients_of(forward: Callable[[], Tensor], model: nn.Module) -> Tensor:
    """All gradients of one pass in one flat tensor; those from before are dropped."""
    model.zero_grad()
    forward().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def adam_step_peak_bytes(config: GPTConfig, batch_size: int, num_tokens: int, plan: Plan) -> int:
    """Peak of a whole step with Adam whose blocks run by `plan`, all that the step holds included.

    As in most training loops, gradients do not exist before backward makes them.
    """
    model = build_gpt(config)
    adam = torch.optim.AdamW(model.parameters())
    tokens_BT = torch.zeros(batch_size, num_tokens, dtype=torch.long)

    def step() -> None:
        with checkpointed(model, plan):
            next_token_loss(model, tokens_BT, tokens_BT).backward()
        adam.step()
        adam.zero_grad()

    step()
    return measure_memory(step, model, adam).peak_bytes
