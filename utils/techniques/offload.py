"""Offloading: move what autograd saves out of memory in forward, and back for backward.

How it works: `saved_tensors_hooks` shows every saved tensor. Its storage, the block of bytes that
views share, goes to a store once, and the graph holds a ticket for it; the first view that backward
asks for brings the block back, and further views share it while it lives. Weights and small blocks
stay. `DiskStore` is for a processor, whose memory is the fast one here; `HostStore` is for a GPU.
Both count the bytes that they moved, which is what offloading costs.

Left out: moving while the next layer computes, as real systems do to hide the transfer.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks

SMALL_BYTES = 4096


class Store(Protocol):
    """A place outside of the memory that is short."""

    bytes_out: int
    bytes_back: int

    def put(self, block: Tensor) -> Any:
        """Move a flat tensor of bytes out; when the ticket dies, its place is free again."""

    def get(self, ticket: Any) -> Tensor:
        """The same bytes in a new tensor on the device where they were."""


class HostStore:
    """The host's memory, for blocks of a GPU; pinned, so that the copy runs at full speed."""

    def __init__(self) -> None:
        self.bytes_out = self.bytes_back = 0

    def put(self, block: Tensor) -> tuple[Tensor, torch.device]:
        """Copy to the host."""
        is_far = block.device.type != "cpu"
        host = torch.empty_like(block, device="cpu", pin_memory=is_far).copy_(block)
        self.bytes_out += block.nbytes
        return host, block.device

    def get(self, ticket: tuple[Tensor, torch.device]) -> Tensor:
        """Copy back."""
        host, device = ticket
        self.bytes_back += host.nbytes
        return host.to(device, copy=True)


class DiskStore:
    """Files in a temporary folder, which goes when the store is closed, or with the process."""

    def __init__(self, folder: Path | None = None) -> None:
        self.bytes_out = self.bytes_back = 0
        self._folder = Path(tempfile.mkdtemp(prefix="offload-", dir=folder))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._numbers = count(1)

    def put(self, block: Tensor) -> "_File":
        """Write the bytes to a file of their own; raises OSError if the disk does not take them."""
        ticket = _File(self._folder / str(next(self._numbers)), block.nbytes, block.device)
        try:
            with ticket.path.open("wb") as file:
                file.write(block.cpu().numpy())
        except OSError as error:
            raise OSError(
                f"{block.nbytes:,} bytes cannot go to {self._folder}: {error}. Free some disk, or "
                "make a DiskStore in another folder."
            ) from error
        self.bytes_out += block.nbytes
        return ticket

    def get(self, ticket: "_File") -> Tensor:
        """Read them back; raises OSError if they are not there any more."""
        block = torch.empty(ticket.num_bytes, dtype=torch.uint8)
        try:
            with ticket.path.open("rb") as file:
                num_read = file.readinto(block.numpy())
            if num_read < ticket.num_bytes:
                raise OSError(f"only {num_read:,} bytes are left")
        except OSError as error:
            raise OSError(
                f"{ticket.num_bytes:,} bytes cannot come back from {ticket.path}: {error}. Leave "
                "the store open and its folder alone until backward is done."
            ) from error
        self.bytes_back += ticket.num_bytes
        return block.to(ticket.device)

    def close(self) -> None:
        """Delete all files now."""
        self._remove()


class _File:
    """The ticket of a DiskStore."""

    def __init__(self, path: Path, num_bytes: int, device: torch.device) -> None:
        self.path, self.num_bytes, self.device = path, num_bytes, device
        weakref.finalize(self, path.unlink, missing_ok=True)


@contextmanager
def offloading(store: Store, model: nn.Module, small_bytes: int = SMALL_BYTES) -> Iterator[None]:
    """Forward inside the block: what it saves for backward goes to `store`.

    The model's weights and buffers, blocks below `small_bytes`, and tensors that are more than
    their bytes (sparse ones, subclasses) stay where they are. Backward may run outside.
    """
    tickets = _Tickets(store, small_bytes, [*model.parameters(), *model.buffers()])
    with saved_tensors_hooks(tickets.pack, _unpack):
        yield


@dataclass
class _Block:
    """A storage that moved, and its copy while somebody uses it."""

    store: Store
    ticket: Any
    copy: weakref.ref | None = None

    def fetch(self) -> UntypedStorage:
        storage = self.copy() if self.copy else None
        if storage is None:
            storage = self.store.get(self.ticket).untyped_storage()
            self.copy = weakref.ref(storage)
        return storage


@dataclass
class _View:
    """How a saved tensor lies in its block."""

    block: _Block
    dtype: torch.dtype
    device: torch.device
    place: tuple[int, torch.Size, tuple[int, ...]]  # offset, shape, strides


class _Tickets:
    """One block for each storage, however many operations save a view of it."""

    def __init__(self, store: Store, small_bytes: int, stay: list[Tensor]) -> None:
        self._store, self._small_bytes = store, small_bytes
        self._stay = {tensor.untyped_storage()._cdata for tensor in stay}
        # By storage, as long as it lives, and by version, as long as a graph asks for it.
        self._moved: dict[int, weakref.WeakValueDictionary[int, _Block]] = {}

    def pack(self, tensor: Tensor) -> Tensor | _View:
        """What stays as it is, or the place of what moved."""
        if not _is_plain(tensor):
            return tensor
        storage = tensor.untyped_storage()
        if storage._cdata in self._stay or storage.nbytes() < self._small_bytes:
            return tensor
        place = (tensor.storage_offset(), tensor.shape, tensor.stride())
        return _View(self._block(storage, tensor), tensor.dtype, tensor.device, place)

    def _block(self, storage: UntypedStorage, tensor: Tensor) -> _Block:
        address, version = storage._cdata, tensor._version
        if address not in self._moved:
            self._moved[address] = weakref.WeakValueDictionary()
            weakref.finalize(storage, self._moved.pop, address, None).atexit = False
        moved = self._moved[address]
        block = moved.get(version)
        if block is None:  # also if it was changed in place since: other values
            flat = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            block = moved[version] = _Block(self._store, self._store.put(flat))
        return block


def _is_plain(tensor: Tensor) -> bool:
    """Whether its bytes, dtype, shape and strides are all there is to it."""
    is_dense = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return is_dense and tensor.device.type != "meta" and not (tensor.is_conj() or tensor.is_neg())


def _unpack(packed: Tensor | _View) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    empty = torch.empty(0, dtype=packed.dtype, device=packed.device)
    return empty.set_(packed.block.fetch(), *packed.place)
