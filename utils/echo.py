"""A layer that says when it works: the order of forward, second forward and backward, as text.

How it works: `Echo` runs a function and prints `forward 1`; its backward prints `backward 1` as
soon as the gradient of its output and what forward saved are both there. A forward run between the
first one and backward is a second one and says `forward 1 again`. The text depends on nothing but
the order of work.

Left out: time, bytes, and layers whose output asks for no gradient: they have no backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from utils.techniques.checkpointing import Checkpoint
from utils.techniques.segments import Plan, layers_of, run_plan


class Echo(nn.Module):
    """`layer` with a voice: calls `say` (print) with each of its runs, under its number."""

    def __init__(
        self,
        number: int,
        layer: Callable[[Tensor], Tensor] = torch.sin,
        say: Callable[[str], object] = print,
    ) -> None:
        super().__init__()
        self.number, self.layer, self.say = number, layer, say
        self.waits_for_backward = False

    def forward(self, x: Tensor) -> Tensor:
        """x -> layer(x), announced."""
        self.say(f"forward {self.number}" + " again" * self.waits_for_backward)
        self.waits_for_backward = True
        return _SayBackward.apply(self.layer(x), self)

    def announce_backward(self) -> None:
        """All that this layer's backward needs is here."""
        self.say(f"backward {self.number}")
        self.waits_for_backward = False


class _SayBackward(torch.autograd.Function):
    """Hands x on, and the gradient back after a word."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, echo: Echo) -> Tensor:
        ctx.echo = echo
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        _ = ctx.saved_tensors  # like a real layer, ask first: a checkpoint runs again for it
        ctx.echo.announce_backward()
        return gradient, None


def order_of_work(plan: Plan, checkpoint: Checkpoint) -> str:
    """What echo layers say in one step by `plan`, in order and in one line."""
    said: list[str] = []
    layers = [Echo(number, say=said.append) for number, _ in enumerate(layers_of(plan), start=1)]
    run_plan(plan, layers, torch.ones(2, requires_grad=True), checkpoint).sum().backward()
    return ", ".join(said)
