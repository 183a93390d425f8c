"""What can be asked of a process group: who is in it, and which library carries its tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, get_process_group_ranks


def members_of(group: ProcessGroup) -> tuple[int, ...]:
    """The group's ranks, counted in the world; none for one that torch.distributed did not make."""
    try:
        return tuple(get_process_group_ranks(group))
    except KeyError:
        return ()


def backend_of(group: ProcessGroup, tensors: Sequence[Tensor]) -> str:
    """The library that will carry these tensors; a group may have several, by device."""
    device = tensors[0].device if tensors else torch.device("cpu")
    try:
        return group._get_backend(device).name()
    except RuntimeError:  # tensors without values, as in a simulation
        return ""
