"""What autograd keeps, and what each piece would cost to make again.

How it works: a dispatch mode notes which operation made every storage, from which others, and its
FLOPs by torch's own formulas; `saved_tensors_hooks` shows what is kept. To make one piece again
means to run the operations between it and the nearest pieces that are kept: their FLOPs are added
up, each operation once.

Left out: bytes per second. An operation without a matrix product counts 0 FLOPs, here as in every
count of FLOPs, though it reads and writes memory. The fused attention kernel of a CPU counts 0 too,
for torch's table lacks it: use explicit attention.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

GIVEN = "given"  # the input: nobody here made it
KEPT_HEADERS = ("made by", "shape", "bytes to keep", "FLOPs to make again", "FLOPs per byte")


@dataclass(frozen=True)
class KeptTensor:
    """One storage that is kept for backward."""

    made_by: str  # the operation, such as "addmm"
    shape: tuple[int, ...]
    num_bytes: int
    flops: int  # of making it again from what else is kept

    @property
    def flops_per_byte(self) -> float:
        """Work per byte that need not be kept."""
        return self.flops / self.num_bytes

    @property
    def row(self) -> tuple[object, ...]:
        """A row under KEPT_HEADERS."""
        price = f"{self.flops_per_byte:.0f}"
        return self.made_by, str(self.shape), self.num_bytes, self.flops, price


def kept_tensors(forward: Callable[[], Tensor], weights: Iterable[Tensor] = ()) -> list[KeptTensor]:
    """Run `forward()` and list what it keeps, in the order of saving; `weights` do not count."""
    ledger = _Ledger()
    owned = {tensor.untyped_storage()._cdata for tensor in weights}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in owned:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), ledger:
        result = forward()
    del result
    return [ledger.kept_tensor(tensor, set(kept) | owned) for tensor in kept.values()]


@dataclass(frozen=True)
class _Operation:
    name: str
    flops: int
    inputs: tuple[int, ...]  # addresses of storages


class _Ledger(TorchDispatchMode):
    """Who made which storage."""

    def __init__(self) -> None:
        super().__init__()
        self._makers: dict[int, list[_Operation]] = {}
        self._alive: list[Any] = []  # an address must not be used twice

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation and note it, unless it only makes a view."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs, outputs = _storages((args, kwargs)), _storages(result)
        self._alive += [*inputs.values(), *outputs.values()]
        count = flop_registry.get(func.overloadpacket)
        flops = count(*args, **kwargs, out_val=result) if count else 0
        operation = _Operation(str(func.overloadpacket).removeprefix("aten."), flops, (*inputs,))
        writes = func._schema.is_mutable
        for address in outputs:
            if address not in inputs or writes:
                self._makers.setdefault(address, []).append(operation)
        return result

    def kept_tensor(self, tensor: Tensor, there: set[int]) -> KeptTensor:
        """The record of one kept tensor, when the storages `there` need not be made again."""
        storage = tensor.untyped_storage()
        makers = self._makers.get(storage._cdata, [])
        return KeptTensor(
            made_by=makers[-1].name.lstrip("_") if makers else GIVEN,
            shape=tuple(tensor.shape),
            num_bytes=storage.nbytes(),
            flops=sum(operation.flops for operation in self._needed(storage._cdata, there)),
        )

    def _needed(self, address: int, there: set[int]) -> list[_Operation]:
        """All operations between a storage and those that are there."""
        needed: dict[int, _Operation] = {}
        waiting = [address]
        while waiting:
            for operation in self._makers.get(waiting.pop(), []):
                if id(operation) not in needed:
                    needed[id(operation)] = operation
                    waiting += [source for source in operation.inputs if source not in there]
        return list(needed.values())


def _storages(nested: Any) -> dict[int, torch.UntypedStorage]:
    tensors = [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
