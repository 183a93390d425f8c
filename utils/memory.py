"""Exact live bytes of a training step, by category and over time, on a CPU as on a GPU.

How it works: every tensor lives in a storage, a block of bytes that views share. A dispatch mode
sees the tensors of every operation, forward, backward and optimizer alike. A storage is counted
when it is first seen and discounted when it is freed, which a weak reference tells. Hooks tell
what each storage is for; a storage that becomes a gradient was one from its first byte.

The same step gives the same bytes every time: Python's cycle collector is held off while the
meter runs. What is left out: scratch memory inside one kernel, which no tensor owns; tensors made
before the meter started count from the first operation that touches them, unless they belong to a
model or an optimizer that the meter was given. On a GPU the allocator's own peak stands beside.
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils.memory_report import BEFORE, CATEGORIES, LiveBlock, MemoryReport
from utils.storages import storages_of, unwraps_itself


class MemoryMeter(TorchDispatchMode):
    """`with MemoryMeter(model, optimizer) as meter: ...`, then `meter.report()`."""

    def __init__(self, *sources: nn.Module | torch.optim.Optimizer) -> None:
        super().__init__()
        self._sources = list(sources)
        self._blocks: dict[int, LiveBlock] = {}  # live storages, by the address of their record
        self._events: list[tuple[LiveBlock, int, str]] = []
        self._marks: list[tuple[str, int]] = []
        self._operation = BEFORE
        self._running = False
        self._allocator_peak_bytes: int | None = None

    def watch(self, *sources: nn.Module | torch.optim.Optimizer) -> None:
        """Name a model or an optimizer that was made after the meter started."""
        self._sources.extend(sources)
        if self._running:
            self._label_sources()
            self._hook_gradients(sources)

    def label(self, category: str, *tensors: Tensor) -> None:
        """Say what tensors are for when no hook can tell, such as a flat gradient buffer."""
        if category not in CATEGORIES:
            raise ValueError(f"The category must be one of {CATEGORIES}, not {category!r}.")
        for tensor in tensors:
            for block in self._see(tensor):
                block.label(category)

    def mark(self, name: str) -> None:
        """Put a name on this moment of the timeline."""
        self._marks.append((name, len(self._events)))

    def report(self) -> MemoryReport:
        """Everything seen so far; the categories are final once the meter has stopped."""
        return MemoryReport.replay(self._events, self._marks, self._allocator_peak_bytes)

    def __enter__(self) -> "MemoryMeter":
        import torch._dynamo  # if the first operation imported it, its frames would stay alive
        gc.collect()
        self._collector_was_on = gc.isenabled()
        gc.disable()  # a collection at a chance moment would move the peak
        self._running = True
        self._handles: list[Any] = []
        self._label_sources()
        self._hook_gradients(self._sources)
        self._saved_hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _return)
        self._saved_hooks.__enter__()
        self._watch_resizes()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._running = False
        if torch.cuda.is_available():
            self._allocator_peak_bytes = torch.cuda.max_memory_allocated()
        torch.UntypedStorage.resize_ = self._plain_resize
        self._saved_hooks.__exit__(*error)
        self._label_sources()
        for handle in self._handles:
            handle.remove()
        if self._collector_was_on:
            gc.enable()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation, then count whatever storages it touched."""
        if any(unwraps_itself(kind) for kind in types):
            return NotImplemented  # a wrapper (DTensor) goes first; its inner operations come here
        result = func(*args, **(kwargs or {}))
        self._operation = str(func.overloadpacket)
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> list[LiveBlock]:
        """The records of a tensor's storages; a storage that is new starts to count."""
        return [self._see_storage(storage, tensor) for storage in storages_of(tensor)]

    def _see_storage(self, storage: torch.UntypedStorage, tensor: Tensor) -> LiveBlock:
        address = storage._cdata
        block = self._blocks.get(address)
        if block is None:
            block = LiveBlock(storage.nbytes(), self._operation, tuple(tensor.shape), tensor.dtype)
            self._blocks[address] = block
            self._events.append((block, block.num_bytes, self._operation))
            weakref.finalize(storage, self._free, address, block).atexit = False
        return block

    def _free(self, address: int, block: LiveBlock) -> None:
        if self._blocks.get(address) is block:
            del self._blocks[address]
        if self._running and block.num_bytes:
            self._events.append((block, -block.num_bytes, self._operation))

    def _pack(self, tensor: Tensor) -> Tensor:
        """Autograd keeps this tensor for backward."""
        self.label("saved activations", tensor)
        return tensor

    def _hook_gradients(self, sources: Iterable[nn.Module | torch.optim.Optimizer]) -> None:
        for source in sources:
            if isinstance(source, nn.Module):
                for parameter in source.parameters():
                    if parameter.requires_grad:
                        hook = parameter.register_post_accumulate_grad_hook(self._label_gradient)
                        self._handles.append(hook)

    def _label_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.label("gradients", parameter.grad)

    def _label_sources(self) -> None:
        for source in self._sources:
            for category, tensor in _owned(source):
                self.label(category, tensor)

    def _watch_resizes(self) -> None:
        """A storage can also shrink or grow in place; sharded training frees weights that way."""
        self._plain_resize = plain_resize = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, num_bytes: int) -> torch.UntypedStorage:
            block = self._blocks.get(storage._cdata)
            plain_resize(storage, num_bytes)
            if block is not None:
                self._events.append((block, num_bytes - block.num_bytes, "resize_"))
                block.num_bytes = num_bytes
            return storage

        torch.UntypedStorage.resize_ = resize_


def measure_memory(
    step: Callable[[], object], *sources: nn.Module | torch.optim.Optimizer
) -> MemoryReport:
    """Run `step()` once under a meter that knows `sources`, and report."""
    with MemoryMeter(*sources) as meter:
        result = step()
        del result
    return meter.report()


def _owned(source: nn.Module | torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """(category, tensor) for all that a model or an optimizer holds."""
    if isinstance(source, nn.Module):
        for tensor in (*source.parameters(), *source.buffers()):
            yield "parameters", tensor
            if tensor.grad is not None:
                yield "gradients", tensor.grad
    else:
        for leaf in tree_leaves([list(state.values()) for state in source.state.values()]):
            if isinstance(leaf, Tensor):
                yield "optimizer state", leaf


def _return(tensor: Tensor) -> Tensor:
    return tensor
