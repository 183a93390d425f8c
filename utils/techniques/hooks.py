"""Hooks that sharded training needs beside those of each unit.

How it works: `at_last_gradient` puts a hook on each of several tensors, which notes that its
gradient is complete; the last one acts. torch's `register_multi_grad_hook` does the same and keeps
the gradients until then. `Calls` knows which calls of a module backward has come to: autograd goes
through calls in the reverse of their order, so whatever came after one is done with when backward
comes to it, parameters that no gradient has reached included. `refuse_state_dict` is for models
that have only shards between steps.

Left out: a tensor that this backward does not reach. Then nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


def at_last_gradient(tensors: Sequence[Tensor], act: Callable[[], None]) -> None:
    """Call `act()` in each backward that computes the gradients of all these tensors."""
    waiting: set[int] = set()

    def note(place: int) -> None:
        waiting.discard(place)
        if not waiting:
            waiting.update(range(len(tensors)))  # for another backward
            act()

    waiting.update(range(len(tensors)))
    for place, tensor in enumerate(tensors):
        tensor.register_hook(lambda _, place=place: note(place))


class Calls:
    """Of each module, the calls that backward has not come to, and those that it has come to."""

    def __init__(self) -> None:
        self._waiting: dict[nn.Module, set[int]] = {}
        self._reached: dict[nn.Module, set[int]] = {}
        self._number = 0

    def note(self, module: nn.Module) -> int:
        """A call that backward will come to; returns its number."""
        self._number += 1
        self._waiting.setdefault(module, set()).add(self._number)
        return self._number

    def reach(self, module: nn.Module, number: int) -> bool:
        """Backward has come to this call; False if it had already, by another of its results."""
        before = self._reached.setdefault(module, set())
        is_new = number not in before
        before.add(number)
        self._waiting.get(module, set()).discard(number)
        return is_new

    def all_reached(self, module: nn.Module) -> bool:
        """Whether backward has come to the module, for the last time."""
        return module in self._reached and not self._waiting.get(module)

    def forget(self) -> None:
        """Backward is over."""
        self._waiting.clear()
        self._reached.clear()


def refuse_state_dict(saver: str) -> Callable[..., None]:
    """A pre-hook of `state_dict`: freed weights hold nothing, and a file of that is found too late.

    It raises RuntimeError, which names `saver` as what to use instead.
    """

    def refuse(*_: Any) -> None:
        raise RuntimeError(
            "The model's weights are shards, so it has no state_dict: use whole_parameters(), or "
            f"{saver}."
        )

    return refuse
