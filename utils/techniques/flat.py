"""Many parameters as one flat tensor that N ranks can share evenly.

How it works: the parameters of a unit (a layer, say) lie one after another in a flat tensor, padded
with zeros to a multiple of the world size. Rank r's shard is the r-th of N equal slices; where a
parameter begins or ends is of no importance to it. Views give the parameters their shapes back, so
one message moves a whole unit and nothing is copied before or after.

Left out: alignment to what a GPU's links like; units that mix dtypes.
Shape suffixes: P values of the padded flat tensor, S values of one shard, P = N x S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FlatLayout:
    """Where each parameter lies; the same on all ranks. `names` and `shapes` are in flat order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    world_size: int

    @property
    def sizes(self) -> list[int]:
        """Values of each parameter."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def num_values(self) -> int:
        """Values without the padding."""
        return sum(self.sizes)

    @property
    def shard_values(self) -> int:
        """S: an N-th, rounded up."""
        return -(-self.num_values // self.world_size)

    @property
    def padded_values(self) -> int:
        """P: what is allocated and sent."""
        return self.shard_values * self.world_size

    def views(self, flat_P: Tensor) -> list[Tensor]:
        """The parameters as views of the flat tensor, each in its own shape."""
        parts = flat_P[: self.num_values].split(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def shard(self, flat_P: Tensor, rank: int) -> Tensor:
        """Rank r's slice, a view of S values."""
        return flat_P[rank * self.shard_values : (rank + 1) * self.shard_values]

    @torch.no_grad()
    def flatten(
        self,
        tensors: Sequence[Tensor | None],
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> Tensor:
        """A new flat tensor with these values; zeros for the padding and in place of None.

        It lies on the first tensor's device; `device` counts where there is no tensor.
        """
        device = next((each.device for each in tensors if each is not None), device)
        flat_P = torch.empty(self.padded_values, dtype=dtype, device=device)
        for view, tensor in zip(self.views(flat_P), tensors, strict=True):
            view.zero_() if tensor is None else view.copy_(tensor)
        flat_P[self.num_values :].zero_()
        return flat_P


@dataclass(frozen=True, eq=False)
class Unit:
    """Parameters that travel together: those of `module` that no other unit has."""

    name: str
    module: nn.Module
    parameters: tuple[nn.Parameter, ...]
    layout: FlatLayout


def split_into_units(
    model: nn.Module, layers: Sequence[nn.Module], world_size: int, is_frozen: bool = False
) -> list[Unit]:
    """One unit for each layer, in the order given, then one for the rest: the root, `model` itself.

    A parameter that two layers share, or a layer and the rest, belongs to the root. `is_frozen`
    chooses the parameters without gradients instead of those with. Units without parameters are
    left out. Raises ValueError for a layer that is not part of the model.
    """
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, not {world_size}.")
    names = {each: name for name, each in model.named_parameters()}
    paths = {module: path for path, module in model.named_modules()}
    if any(layer not in paths for layer in layers):
        raise ValueError("A layer to be sharded is not part of the model: pass its own modules.")
    users = _num_users(model, layers)
    units = []
    for module in (*layers, model):
        taken = {each for unit in units for each in unit.parameters}
        mine = [
            each
            for each in module.parameters()
            if each.requires_grad != is_frozen
            and each not in taken
            and (module is model or users[each] == 1)
        ]
        if mine:
            layout = FlatLayout(
                tuple(names[each] for each in mine),
                tuple(tuple(each.shape) for each in mine),
                world_size,
            )
            units.append(Unit(paths[module] or "root", module, tuple(mine), layout))
    return units


def _num_users(model: nn.Module, layers: Sequence[nn.Module]) -> dict[nn.Parameter, int]:
    """In how many layers each parameter is used; the rest of the model counts as one more."""
    inside = {module for layer in layers for module in layer.modules()}
    rest = [module for module in model.modules() if module not in inside]
    users: dict[nn.Parameter, int] = {}
    for layer in layers:
        for parameter in layer.parameters():
            users[parameter] = users.get(parameter, 0) + 1
    in_rest = {each for module in rest for each in module.parameters(recurse=False)}
    for parameter in in_rest:
        users[parameter] = users.get(parameter, 0) + 1
    return users
