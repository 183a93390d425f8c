"""A collective as torch's dispatcher sees it, in plain words: kind, sizes, group, bytes.

How it works: all ways to a collective (Python functions, DDP's C++ reducer, FSDP2, functional
collectives, DeepSpeed) end in one of the operators `c10d::...`. `call_of` reads an operator's
arguments and says what it is called, what it carries, and what gloo will write for it.

Left out: `bytes` for sparse tensors (counted as none) and for the store that ranks meet at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, get_process_group_ranks

from utils.ranks import gloo_bytes
from utils.ranks.gloo_bytes import Sent
from utils.ranks.groups import backend_of, members_of

KINDS = {
    "allreduce_": "all_reduce",
    "allreduce_coalesced_": "all_reduce",
    "allgather_": "all_gather",
    "_allgather_base_": "all_gather",
    "allgather_coalesced_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "reduce_scatter_": "reduce_scatter",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "broadcast_": "broadcast",
    "reduce_": "reduce",
    "gather_": "gather",
    "scatter_": "scatter",
    "alltoall_": "all_to_all",
    "alltoall_base_": "all_to_all",
    "send": "send",
    "recv_": "recv",
    "recv_any_source_": "recv",
    "barrier": "barrier",
    "monitored_barrier_": "barrier",
}
_ROOTED = ("broadcast", "reduce", "gather", "scatter", "send", "recv")


class Call(NamedTuple):
    """One collective on one rank.

    `payload_bytes` is the tensor that the textbook's formulas speak of: what is reduced, broadcast
    or sent; of all_gather the output, of reduce_scatter and all_to_all the input, of gather and
    scatter one rank's part. `root` counts in the world, and is the other end of send and recv; -1
    means none. `group_ranks` are the group's members, counted in the world; none if
    torch.distributed does not know them.
    """

    kind: str
    num_values: int
    dtype: str
    payload_bytes: int
    group_size: int
    group_rank: int
    backend: str
    root: int
    sent: Sent
    group_ranks: tuple[int, ...] = ()


class _Arguments(NamedTuple):
    """What an operator was called with; the first tensors are its outputs unless it has one set."""

    operator: str
    outputs: list[Tensor]
    inputs: list[Tensor]
    rank: int
    world_size: int
    root: int
    splits: tuple[Sequence[int], Sequence[int]]  # of output and input along their first dimension


def call_of(operator: str, names: Sequence[str], values: Sequence[Any]) -> Call:
    """Describe a call of `c10d::<operator>`, given the names and the values of its arguments."""
    named = dict(zip(names, values, strict=False))
    group = ProcessGroup.unbox(named["process_group"])
    kind, arguments = KINDS[operator], _read(operator, named, group)
    has_root = kind in _ROOTED and arguments.root >= 0
    carried = arguments.outputs if kind in ("all_gather", "recv") else arguments.inputs
    backend = backend_of(group, carried or _flat([named.get("tensor", ())]))
    sent, members = Sent(), members_of(group)
    if backend == "gloo" and group.size() > 1 and all(t.layout == torch.strided for t in carried):
        sent = _GLOO[kind](arguments)
    return Call(
        kind,
        sum(tensor.numel() for tensor in carried),
        str(carried[0].dtype).removeprefix("torch.") if carried else "",
        _num_bytes(carried),
        group.size(),
        group.rank(),
        backend,
        get_process_group_ranks(group)[arguments.root] if has_root else -1,
        sent,
        members,
    )


def _read(operator: str, named: dict[str, Any], group: ProcessGroup) -> _Arguments:
    kind = KINDS[operator]
    both = _flat([value for name, value in named.items() if name in _BOTH])
    outputs = _flat([value for name, value in named.items() if name in _OUTPUTS])
    inputs = _flat([value for name, value in named.items() if name in _INPUTS])
    if kind == "scatter":  # only the root has inputs: all ranks have a part
        inputs = outputs
    if kind == "barrier":  # its tensor is there only to find the backend
        both = []
    root = next((int(named[name]) for name in ("root_rank", "dst", "src") if name in named), -1)
    splits = (named.get("output_split_sizes") or [], named.get("input_split_sizes") or [])
    return _Arguments(
        operator, both or outputs, both or inputs, group.rank(), group.size(), root, splits
    )


_BOTH = ("tensors", "tensor")
_OUTPUTS = ("output_tensors", "output_tensor", "outputs", "output_lists", "output")
_INPUTS = ("input_tensors", "input_tensor", "inputs", "input_list", "input")


def _reduce_scatter(a: _Arguments) -> Sent:
    """Each part is reduced by itself; in the other collectives coalesced tensors travel as one."""
    return gloo_bytes.add(_ring(_num_bytes([tensor]), a) for tensor in a.inputs)


def _ring(num_bytes: int, a: _Arguments) -> Sent:
    return gloo_bytes.all_reduce(num_bytes, a.inputs[0].element_size(), a.rank, a.world_size)


def _reduce(a: _Arguments) -> Sent:
    num_bytes, value_bytes = _num_bytes(a.inputs), a.inputs[0].element_size()
    return gloo_bytes.reduce(num_bytes, value_bytes, a.rank, a.world_size, a.root)


def _all_gather(a: _Arguments) -> Sent:
    return gloo_bytes.all_gather(_num_bytes(a.inputs), a.world_size)


def _all_to_all(a: _Arguments) -> Sent:
    if a.operator == "alltoall_":
        sent, received = ([_num_bytes([t]) for t in tensors] for tensors in (a.inputs, a.outputs))
    else:
        received = _split(a.outputs[0], a.splits[0], a.world_size)
        sent = _split(a.inputs[0], a.splits[1], a.world_size)
    return gloo_bytes.all_to_all(sent, received, a.rank, a.world_size)


def _split(tensor: Tensor, split: Sequence[int], world_size: int) -> list[int]:
    if not split:
        return [_num_bytes([tensor]) // world_size] * world_size
    row_bytes = _num_bytes([tensor]) // max(1, tensor.shape[0])
    return [row_bytes * rows for rows in split]


def _barrier(a: _Arguments) -> Sent:
    if a.operator == "monitored_barrier_":
        return gloo_bytes.monitored_barrier(a.rank, a.world_size)
    return gloo_bytes.barrier(a.world_size)


def _rooted(formula: Callable[[int, int, int, int], Sent]) -> Callable[[_Arguments], Sent]:
    return lambda a: formula(_num_bytes(a.inputs), a.rank, a.world_size, a.root)


_GLOO: dict[str, Callable[[_Arguments], Sent]] = {
    "all_reduce": lambda a: _ring(_num_bytes(a.inputs), a),
    "reduce_scatter": _reduce_scatter,
    "all_gather": _all_gather,
    "all_to_all": _all_to_all,
    "reduce": _reduce,
    "broadcast": _rooted(gloo_bytes.broadcast),
    "gather": _rooted(gloo_bytes.gather),
    "scatter": _rooted(gloo_bytes.scatter),
    "send": lambda a: gloo_bytes.messages([_num_bytes(a.inputs)], []),
    "recv": lambda a: gloo_bytes.messages([], [_num_bytes(a.inputs)]),
    "barrier": _barrier,
}


def _flat(values: Sequence[Any]) -> list[Tensor]:
    tensors = []
    for value in values:
        tensors += [value] if isinstance(value, Tensor) else _flat(value)
    return tensors


def _num_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
