"""How large gradients are: exact counts by binary exponent, for weights and for activations.

How it works: a value counts under e when 2**e <= |value| < 2**(e + 1), as `frexp` tells without
rounding. The gradients of weights stay after backward; those of activations live only during it,
so `activation_exponents` runs the backward pass itself, with hooks. Each bin also counts the values
on its edges, where fp16's rounding decides: `utils.gradient_histogram` needs them.

What is left out: gradients inside a layer or a function, such as those of attention's scores.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

TOP = 1 - 2.0**-12  # 65520 / 65536: from this part of a bin's end, fp16 rounds to the next bin


@dataclass(frozen=True)
class ExponentCounts:
    """Numbers of values by exponent; `powers` and `tops` are those on the edges of their bin."""

    counts: Counter[int] = field(default_factory=Counter)
    powers: Counter[int] = field(default_factory=Counter)  # exactly 2**e
    tops: Counter[int] = field(default_factory=Counter)  # at least TOP * 2**(e + 1)
    num_zeros: int = 0
    num_not_finite: int = 0

    @property
    def num_nonzero(self) -> int:
        """Finite values other than 0; all shares are of these, for a 0 has nothing to lose."""
        return self.counts.total()

    def __add__(self, other: "ExponentCounts") -> "ExponentCounts":
        mine, theirs = vars(self), vars(other)
        return ExponentCounts(**{name: mine[name] + theirs[name] for name in mine})


def count_exponents(values: Tensor) -> ExponentCounts:
    """Count one tensor of any shape and floating-point format, exactly."""
    size = values.detach().double().abs().flatten()
    finite = size[size.isfinite()]
    fraction, exponent = torch.frexp(finite[finite > 0])  # fraction from 0.5 up to 1
    kinds = (exponent, exponent[fraction == 0.5], exponent[fraction >= TOP])
    num_zeros, num_not_finite = int((finite == 0).sum()), size.numel() - finite.numel()
    return ExponentCounts(*(_tally(kind - 1) for kind in kinds), num_zeros, num_not_finite)


def _tally(exponent: Tensor) -> Counter[int]:
    if exponent.numel() == 0:
        return Counter()
    lowest = int(exponent.min())
    numbers = torch.bincount(exponent - lowest).tolist()
    return Counter({lowest + place: number for place, number in enumerate(numbers) if number})


def gradient_exponents(model: nn.Module) -> dict[str, ExponentCounts]:
    """Count the weights' gradients that backward has left, by layer ("blocks.0", "output", ...)."""
    named = model.named_parameters()
    layers = _by_layer((name, p.grad) for name, p in named if p.grad is not None)
    if not layers:
        raise ValueError("The model has no gradients: call loss.backward() before counting them.")
    return layers


def activation_exponents(
    model: nn.Module, forward: Callable[[], Tensor]
) -> dict[str, ExponentCounts]:
    """Run `forward()` and its backward; count the gradients of what weighted modules put out."""
    seen: list[tuple[str, ExponentCounts]] = []

    def watch(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda grad: seen.append((name, count_exponents(grad))))

    handles = [
        module.register_forward_hook(lambda *call, name=name: watch(name, call[-1]))
        for name, module in model.named_modules()
        if list(module.parameters(recurse=False))
    ]
    try:
        forward().backward()
    finally:
        for handle in handles:
            handle.remove()
    return _by_layer(seen)


def _by_layer(named: Iterable[tuple[str, Tensor | ExponentCounts]]) -> dict[str, ExponentCounts]:
    layers: dict[str, ExponentCounts] = {}
    for name, part in named:
        counts = count_exponents(part) if isinstance(part, Tensor) else part
        layers[layer_of(name)] = layers.get(layer_of(name), ExponentCounts()) + counts
    return layers


def layer_of(name: str) -> str:
    """The layer of a parameter or module: its first name, with the number if there are several."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[1:2] and parts[1].isdigit() else parts[0]


def merge(layers: Iterable[ExponentCounts]) -> ExponentCounts:
    """All layers as one."""
    return sum(layers, ExponentCounts())
