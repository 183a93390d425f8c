"""APEX's four levels O0-O3, rebuilt: which tensors are fp16, and who protects them.

How it works: a level is five properties, as in NVIDIA/apex before amp was removed on 2025-05-08.
`initialize` applies them to a model: cast it, keep fp32 masters, wrap forward in an autocast, scale
the loss. What each level does is then a few lines over the parts of this course: `ManualAutocast`
(O1), `MasterWeights` (O2), the scalers.

Left out: several losses and models at once; O1's patching of torch itself, which a context
replaces; BatchNorm has no place in a GPT, so keep_batchnorm_fp32 is honoured but finds nothing.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import APEX_RULES, AutocastRules
from utils.techniques.loss_scaling import APEX, DynamicScaler, StaticScaler
from utils.techniques.master_weights import MasterWeights


@dataclass(frozen=True)
class OptLevel:
    """One row of apex/amp/frontend.py; None means "not set", as it does there."""

    name: str
    cast_model_type: torch.dtype | None
    patch_torch_functions: bool
    keep_batchnorm_fp32: bool | None
    master_weights: bool | None
    loss_scale: float | str
    about: str


LEVELS: dict[str, OptLevel] = {
    level.name: level
    for level in (
        OptLevel("O0", torch.float32, False, None, False, 1.0, "pure fp32"),
        OptLevel("O1", None, True, None, None, "dynamic", "casts around the operations"),
        OptLevel("O2", torch.float16, False, True, True, "dynamic", "fp16 with fp32 masters"),
        OptLevel("O3", torch.float16, False, False, False, 1.0, "pure fp16"),
    )
}


class MixedPrecision:
    """A model, its optimizer and a level: `step(loss_function)` does one whole training step."""

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        level: OptLevel,
        rules: AutocastRules = APEX_RULES,
    ) -> None:
        self.model, self.level, self.rules = model, level, rules
        self.masters: MasterWeights | None = None
        if level.master_weights:
            self.masters = MasterWeights(model, level.cast_model_type)
        elif level.cast_model_type is not None:
            model.to(level.cast_model_type)
        if level.keep_batchnorm_fp32:
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.float()
        updated = self.masters.parameters() if self.masters else list(model.parameters())
        self.optimizer = make_optimizer(updated)
        is_dynamic = level.loss_scale == "dynamic"
        self.scaler = DynamicScaler(**APEX) if is_dynamic else StaticScaler(level.loss_scale)

    def step(self, loss_function: Callable[[nn.Module], Tensor]) -> float:
        """Forward, backward, update, or skip after an overflow; returns the unscaled loss."""
        with self.forward_context():
            loss = loss_function(self.model)
        self.scaler.scale(loss).backward()
        if self.masters:
            self.masters.collect_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.masters:
            self.masters.copy_to_model()
        self.optimizer.zero_grad()
        return loss.item()

    def forward_context(self) -> ManualAutocast | nullcontext:
        """What forward runs in: an autocast for O1, nothing for the others."""
        if not self.level.patch_torch_functions:
            return nullcontext()
        return ManualAutocast(self.rules, torch.float16)


def initialize(
    model: nn.Module,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    level: str = "O1",
    loss_scale: float | str | None = None,
) -> MixedPrecision:
    """Like apex.amp.initialize: a level by name; `loss_scale` overrides its own ("dynamic" too)."""
    if level not in LEVELS:
        raise ValueError(f"There is no level {level!r}; the levels are {', '.join(LEVELS)}.")
    chosen = LEVELS[level]
    if loss_scale is not None:
        chosen = replace(chosen, loss_scale=loss_scale)
    return MixedPrecision(model, make_optimizer, chosen)
