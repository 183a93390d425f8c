"""What it takes to run a function again: its call, random numbers and autocast.

How it works: `ReplayState` notes the generators and autocast settings when a function runs first;
`replay()` brings them back for a second run and leaves everything outside as it was. A state of the
CPU's generator takes 5,056 bytes, so functions that draw nothing share one. A `Call` holds the
function and everything but the tensors, which autograd is to keep.

Left out: whatever else a function may read (globals, files, the clock, a generator of its own, the
default device); it must not change.
"""

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from utils.techniques.autocast import ManualAutocast, current_autocast

_thread = threading.local()  # remembers the state that was noted last


class ReplayState:
    """Make one before a function runs, and `replay()` to run it again."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        devices = {tensor.device for tensor in tensors}
        self._cuda = sorted((d for d in devices if d.type == "cuda"), key=lambda d: d.index)
        self._random = _share(self._random_states())
        self._kinds = sorted({"cpu", *(device.type for device in devices)} - {"meta"})
        self._autocast = self._autocast_settings()
        self._ours = current_autocast()

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Inside the block: the state of the first run. After it: that of before."""
        outside = self._random_states()
        with ExitStack() as stack:
            for context in self._contexts():
                stack.enter_context(context)
            self.restore_random()
            try:
                yield
            finally:
                self._set_random(outside)

    def restore_random(self) -> None:
        """Set the generators back, for good."""
        self._set_random(self._random)

    def _contexts(self) -> Iterator[AbstractContextManager]:
        """Only what is needed: entering a context costs time."""
        if self._autocast != self._autocast_settings():
            for kind, (enabled, dtype, cache) in zip(self._kinds, self._autocast, strict=True):
                yield torch.autocast(kind, dtype, enabled, cache)
        # Even if ours is the current one: torch takes it off while `Tensor.backward` runs.
        if self._ours or current_autocast():
            yield self._ours.copy() if self._ours else ManualAutocast(enabled=False)

    def _random_states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._cuda)]

    def _set_random(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._cuda, states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)

    def _autocast_settings(self) -> list[tuple[bool, torch.dtype, bool]]:
        cache = torch.is_autocast_cache_enabled()
        return [
            (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), cache)
            for kind in self._kinds
        ]


def _share(states: list[Tensor]) -> list[Tensor]:
    """The states that were noted last if these are the same, so that one copy is kept."""
    last = getattr(_thread, "states", [])
    if len(last) != len(states) or not all(map(_same, last, states)):
        _thread.states = states
    return _thread.states


def _same(one: Tensor, other: Tensor) -> bool:
    """Compare as bytes: no operation runs that a meter would count."""
    return _bytes(one) == _bytes(other)


def _bytes(state: Tensor) -> bytes:
    return ctypes.string_at(state.data_ptr(), state.nbytes)


class Call:
    """`function(*args, **kwargs)` with its tensors taken out, so that it can be made again.

    `tensors` are the arguments' tensors, in order; whoever keeps the call decides who keeps them.
    """

    def __init__(self, function: Callable, args: tuple, kwargs: dict) -> None:
        self.tensors, self._arguments = split((args, kwargs))
        self._function = function
        self.state = ReplayState(self.tensors)

    def release(self) -> list[Tensor]:
        """Hand the tensors over and keep none."""
        tensors, self.tensors = self.tensors, []
        return tensors

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Call the function with these tensors in their places.

        Raises RuntimeError if it changes one of them in place: it could not run again from that.
        """
        before = _versions(tensors)
        args, kwargs = join(tensors, self._arguments)
        result = self._function(*args, **kwargs)
        if _versions(tensors) != before:
            raise RuntimeError(
                "A checkpointed function changed one of its inputs in place, so it cannot run "
                "again from it: use the operation that makes a new tensor, relu instead of relu_."
            )
        return result


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    """How often each tensor was changed in place; those made in inference mode do not count it."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


Rest = tuple[list[Any], Any]  # leaves with holes where tensors were, and how they were nested
_HOLE = object()


def split(nested: Any) -> tuple[list[Tensor], Rest]:
    """The tensors in nested tuples, lists and dicts, and the rest."""
    leaves, structure = tree_flatten(nested)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return tensors, ([_HOLE if isinstance(x, Tensor) else x for x in leaves], structure)


def join(tensors: Sequence[Tensor], rest: Rest) -> Any:
    """What `split` took apart, with these tensors in the holes."""
    leaves, structure = rest
    left = iter(tensors)
    return tree_unflatten([next(left) if leaf is _HOLE else leaf for leaf in leaves], structure)


def kind_of(tensor: Tensor) -> tuple:
    """What a second run must bring back in any case."""
    return tuple(tensor.shape), tensor.dtype, tensor.device.type


def ran_otherwise(how: str) -> RuntimeError:
    """The error for a function that does not do the same again."""
    return RuntimeError(
        f"A checkpointed function did something else when it ran again: {how}. It must depend on "
        "its arguments alone; look for globals, counters and modes that changed in between."
    )
