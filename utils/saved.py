"""Which tensors autograd keeps for the backward pass, and for which layer.

How it works: `saved_tensors_hooks` shows every tensor that an operation saves, and forward hooks
tell which layer was running. Tensors that share a storage are counted once, with their whole
storage; a model's own weights and buffers are left out, for they exist anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SavedTensor:
    """One storage kept for backward; `layer` is the dotted name of the module that ran."""

    layer: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    num_bytes: int


def saved_for_backward(model: nn.Module, forward: Callable[[], Tensor]) -> list[SavedTensor]:
    """Run `forward()` and list what it keeps alive until backward, in the order of saving."""
    owned = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, SavedTensor] = {}
    keep_alive: list[Tensor] = []  # an address must not be reused while we tell storages apart
    running: list[str] = ["(outside the layers)"]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned and storage._cdata not in kept:
            keep_alive.append(tensor)
            kept[storage._cdata] = SavedTensor(
                running[-1], tuple(tensor.shape), tensor.dtype, storage.nbytes()
            )
        return tensor

    handles = []
    for name, module in model.named_modules():
        enter = module.register_forward_pre_hook(lambda *_, name=name: running.append(name))
        leave = module.register_forward_hook(lambda *_: void(running.pop()), always_call=True)
        handles += [enter, leave]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = forward()
    finally:
        for handle in handles:
            handle.remove()
    del result
    return list(kept.values())


def void(_: object) -> None:
    """Drop a value: a forward hook that returned one would replace the layer's output."""


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that `forward()` keeps for backward, each storage once, weights not counted."""
    return sum(tensor.num_bytes for tensor in saved_for_backward(model, forward))
