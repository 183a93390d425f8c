"""Muon: a step for weight matrices whose singular values are all about equal.

How it works: the momentum of a matrix' gradient is usually dominated by a few directions. Muon
replaces it by the nearest matrix whose singular values are all 1 (U V^T of its singular value
decomposition), so that rare directions are learnt as fast as frequent ones. No decomposition is
needed: an odd polynomial, applied five times, pushes every singular value towards 1 with nothing
but matrix products (Newton-Schulz). State: one momentum a value, half of Adam's.

Left out: everything that is no hidden matrix; embeddings, the output layer, norms and biases stay
with AdamW (`split_parameters`). Source: Keller Jordan et al., "Muon: An optimizer for hidden layers
in neural networks", 2024 (kellerjordan.github.io/posts/muon), also for the polynomial.

Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# x -> a x + b x^3 + c x^5: steep at 0, so that small singular values grow fast; ends in 0.7 to 1.2.
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5


@torch.no_grad()
def orthogonalise(matrix_RC: Tensor, num_iterations: int = NUM_ITERATIONS) -> Tensor:
    """About U V^T of matrix_RC = U S V^T; a zero matrix stays zero."""
    a, b, c = POLYNOMIAL
    is_tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    x_RC = matrix_RC.mT if is_tall else matrix_RC  # the smaller square product
    x_RC = x_RC / (x_RC.norm() + 1e-7)  # every singular value is now at most 1
    for _ in range(num_iterations):
        square_RR = x_RC @ x_RC.mT
        x_RC = a * x_RC + (b * square_RR + c * square_RR @ square_RR) @ x_RC
    return x_RC.mT if is_tall else x_RC


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices. Raises ValueError for a parameter that is none."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dim() != 2:
                    raise ValueError(
                        f"Muon takes matrices, not a parameter of shape {tuple(parameter.shape)}: "
                        "give that one to AdamW."
                    )

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, weight_RC: nn.Parameter, group: dict) -> None:
        state = self.state[weight_RC]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight_RC)
        momentum_RC: Tensor = state["momentum"]
        momentum_RC.lerp_(weight_RC.grad, 1 - group["momentum"])
        ahead_RC = weight_RC.grad.lerp(momentum_RC, group["momentum"])  # Nesterov: a look ahead
        rows, columns = weight_RC.shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        weight_RC.mul_(1 - group["lr"] * group["weight_decay"])
        weight_RC.sub_(orthogonalise(ahead_RC), alpha=rate)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(matrices of the GPT's blocks, all other parameters)."""
    inside = {id(p) for p in model.blocks.parameters() if p.dim() == 2}
    parameters = list(model.parameters())
    hidden = [p for p in parameters if id(p) in inside]
    return hidden, [p for p in parameters if id(p) not in inside]


def newton_schulz_flops(rows: int, columns: int, num_iterations: int = NUM_ITERATIONS) -> int:
    """FLOPs of `orthogonalise`: two products with the long side, one square, each iteration."""
    short, long = sorted((rows, columns))
    return num_iterations * (4 * short**2 * long + 2 * short**3)
