"""The blocks of bytes behind a tensor; a wrapper such as DTensor has those of its parts."""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def storages_of(tensor: Tensor) -> list[torch.UntypedStorage]:
    """Those behind a tensor: none on the meta device, of a wrapper those of its tensor parts."""
    if is_traceable_wrapper_subclass(tensor):
        inner = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return [each for part in inner if isinstance(part, Tensor) for each in storages_of(part)]
    if tensor.device.type == "meta" or tensor.layout != torch.strided:
        return []
    return [tensor.untyped_storage()]


def unwraps_itself(kind: type) -> bool:
    """Whether this type of tensor (DTensor) turns its operations into those of its parts."""
    return kind not in (Tensor, nn.Parameter) and hasattr(kind, "__tensor_flatten__")
