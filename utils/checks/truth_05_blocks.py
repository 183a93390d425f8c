"""What lab 05's judge of offloading compares with: blocks that move, and a vault that remembers.

How it works: a `Block` is one storage that autograd saved. A `Vault` takes blocks out of memory:
it holds plain bytes, which no memory meter counts, and notes what came and what went back.
`Inspector` stands between autograd and someone's hooks and compares what comes back.
"""

import hashlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks

from utils.techniques.offload import Store


class Block:
    """One storage that autograd saved: in memory at first, then perhaps in a store."""

    def __init__(self, storage: UntypedStorage) -> None:
        self.num_bytes, self.in_memory = storage.nbytes(), True
        self._storage, self._original = storage, weakref.ref(storage)

    def is_of(self, storage: UntypedStorage) -> bool:
        """Whether this very storage became the block; an address can be used again."""
        return self._original() is storage

    def move(self, store: Store) -> None:
        """Copy the bytes to the store and let go of the storage."""
        flat = torch.empty(0, dtype=torch.uint8).set_(self._storage)
        self._store, self._ticket, self._back = store, store.put(flat), None
        self._storage, self.in_memory = None, False

    def storage(self) -> UntypedStorage:
        """The storage, brought back if need be: once for all views that use it at the time."""
        if self.in_memory:
            return self._storage
        storage = self._back and self._back()
        if storage is None:
            storage = self._store.get(self._ticket).untyped_storage()
            self._back = weakref.ref(storage)
        return storage


class Vault:
    """A store outside of the meter's sight: the digests of what came, and how much went back."""

    def __init__(self) -> None:
        self.bytes_out = self.bytes_back = 0
        self.digests: list[str] = []
        self._tickets: weakref.WeakSet[_Ticket] = weakref.WeakSet()

    def put(self, block: Tensor) -> "_Ticket":
        """Take a flat tensor of bytes out of memory."""
        content = block.numpy().tobytes()
        ticket = _Ticket(content)
        self.digests.append(digest_of(content))
        self.bytes_out += len(content)
        self._tickets.add(ticket)
        return ticket

    def get(self, ticket: "_Ticket") -> Tensor:
        """The same bytes in a new tensor."""
        self.bytes_back += len(ticket.content)
        block = torch.empty(len(ticket.content), dtype=torch.uint8)
        block.numpy()[:] = np.frombuffer(ticket.content, dtype=np.uint8)
        return block

    def num_tickets(self) -> int:
        """Tickets that something still holds."""
        return len(self._tickets)


class _Ticket:
    def __init__(self, content: bytes) -> None:
        self.content = content


def digest_of(content: bytes) -> str:
    """A short name for some bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def content_of(storage: UntypedStorage) -> bytes:
    """All bytes of a storage."""
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()


@dataclass(frozen=True)
class SavedStorage:
    """What a step saves for backward, by storage: bytes, a name for the content, is it a weight."""

    num_bytes: int
    digest: str
    is_weight: bool


def saved_storages(model: nn.Module, forward: Callable[[], Tensor]) -> list[SavedStorage]:
    """Each storage that `forward()` saves, once, in the order of saving."""
    weights = {t.untyped_storage() for t in (*model.parameters(), *model.buffers())}
    found: dict[UntypedStorage, SavedStorage] = {}  # they stay alive, so no address is used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in found:
            digest = digest_of(content_of(storage))
            found[storage] = SavedStorage(storage.nbytes(), digest, storage in weights)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return list(found.values())


def moved_by_age(saved: list[SavedStorage], memory_bytes: int) -> list[SavedStorage]:
    """What leaves memory when the oldest goes first and only while the rest does not fit."""
    inside, moved = [], []
    for block in (each for each in saved if not each.is_weight):
        inside.append(block)
        while sum(each.num_bytes for each in inside) > memory_bytes:
            moved.append(inside.pop(0))
    return moved


def reference_hooks(store: Store, model: nn.Module, memory_bytes: int) -> tuple[Callable, Callable]:
    """Hooks that move the oldest blocks first: what peaks are measured with."""
    weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    blocks: list[weakref.ref[Block]] = []

    def pack(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata in weights:
            return tensor
        alive = [block for one in blocks if (block := one()) is not None]
        block = next((block for block in alive if block.is_of(storage)), None)
        if block is None:
            block = Block(storage)
            alive.append(block)
        inside = [each for each in alive if each.in_memory]
        while sum(each.num_bytes for each in inside) > memory_bytes:
            inside.pop(0).move(store)
        blocks[:] = map(weakref.ref, alive)
        return block, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        block, dtype, *place = packed
        return torch.empty(0, dtype=dtype).set_(block.storage(), *place)

    return pack, unpack


class Inspector:
    """Stands around someone's hooks: `problem` says how the first tensor came back wrong."""

    def __init__(self, pack: Callable, unpack: Callable) -> None:
        self._pack, self._unpack, self.problem = pack, unpack, ""

    def pack(self, tensor: Tensor) -> tuple:
        """Remember the tensor itself, and hand it on."""
        place = tensor.stride(), tensor.storage_offset()
        return tensor.detach().clone(), place, self._pack(tensor)

    def unpack(self, packed: tuple) -> Tensor:
        """Hand on what comes back, and the original in place of what is no tensor."""
        original, place, theirs = packed
        got = self._unpack(theirs)
        if not self.problem:
            self.problem = _difference(got, original, *place)
        return got if isinstance(got, Tensor) else original


def _difference(got: Any, original: Tensor, strides: tuple[int, ...], offset: int) -> str:
    if not isinstance(got, Tensor):
        return f"a {type(got).__name__} came back in place of a tensor"
    for name, mine, right in (
        ("dtype", got.dtype, original.dtype),
        ("shape", tuple(got.shape), tuple(original.shape)),
        ("strides", got.stride(), strides),
        ("offset", got.storage_offset(), offset),
    ):
        if mine != right:
            return f"a tensor came back with other {name}, {mine} in place of {right}"
    return "" if torch.equal(got, original) else "a tensor came back with other values"
