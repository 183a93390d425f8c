"""Act on each unit of a model when backward has finished with it, in the same order on all ranks.

How it works: a hook on each parameter notes that its gradient has arrived. When a unit is complete
and all units before it are done, `on_ready(unit)` is called; the order is fixed (the last layer
first, the root last), since ranks whose messages cross would wait for each other for ever. At the
end of backward the remaining units follow: the root, and those with parameters that this step did
not use.

Left out: a layer that is used twice, each time in a `checkpoint_by_function`; that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from utils.techniques.checkpointing import NO_BACKWARD
from utils.techniques.flat import Unit


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors that a module returned, in nested tuples, lists and dicts.

    Raises TypeError if there is none and gradients are wanted: nothing would tell when backward
    begins.
    """
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    if not tensors and torch.is_grad_enabled():
        raise TypeError(
            f"A layer returned an object of type {type(result).__name__}, in which no tensor is "
            "found: let it return a tensor, or tuples, lists or dicts of tensors."
        )
    return tensors


class BackwardWatch:
    """Calls `on_begin()`, then `on_ready(index)` for each unit, then `on_end()`, in each backward.

    `units` as `split_into_units` returns them: layers in forward order, the root last.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        on_ready: Callable[[int], None],
        on_begin: Callable[[], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.in_backward = False
        self.is_incomplete = False  # whether a backward has ended with an error
        self._on_ready, self._on_begin, self._on_end = on_ready, on_begin, on_end
        layers = [i for i, unit in enumerate(units) if unit.module is not model]
        root = [i for i, unit in enumerate(units) if unit.module is model]
        self._order, self._num_early = [*reversed(layers), *root], len(layers)
        self._sets = [set(unit.parameters) for unit in units]
        self._waiting: list[set[nn.Parameter]] = []
        self._num_done = 0
        model.register_forward_pre_hook(self._before_forward)
        for index, unit in enumerate(units):
            for parameter in unit.parameters:
                if parameter.requires_grad:
                    hook = self._hook(index)
                    parameter.register_post_accumulate_grad_hook(hook)
        model.register_forward_hook(self._after_forward)

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        """A backward that seems to go on, but is not the caller, was ended by an error."""
        if self.in_backward and torch._C._current_graph_task_id() == NO_BACKWARD:
            self.in_backward, self.is_incomplete = False, True

    def _after_forward(self, module: nn.Module, args: Any, result: Any) -> None:
        """The model's result is the first thing that backward meets."""
        for leaf in tensors_in(result):
            if leaf.requires_grad:
                leaf.register_hook(self._begin)

    def _begin(self, _: Tensor) -> None:
        if self.in_backward:  # a model with several results
            return
        self.in_backward, self._num_done = True, 0
        self._waiting = [set(parameters) for parameters in self._sets]
        torch.autograd.Variable._execution_engine.queue_callback(self._finish)
        if self._on_begin is not None:
            self._on_begin()

    def _hook(self, index: int) -> Callable[[nn.Parameter], None]:
        def on_gradient(parameter: nn.Parameter) -> None:
            if not self.in_backward:
                raise RuntimeError(
                    "A gradient arrived, but backward did not begin at the model's result: call "
                    "the model itself, and backward on a loss made from what it returned."
                )
            if index in self._order[: self._num_done]:
                raise RuntimeError(
                    "A layer got gradients twice in one backward: if it is used twice, use "
                    "checkpoint_by_hooks instead of checkpoint_by_function."
                )
            self._waiting[index].discard(parameter)
            self.go_on()

        return on_gradient

    def go_on(self, is_over: Callable[[int], bool] = lambda index: False) -> None:
        """Hand over layers that are complete, or of which `is_over(index)` knows that they are."""
        while self.in_backward and self._num_done < self._num_early:
            index = self._order[self._num_done]
            if self._waiting[index] and not is_over(index):
                break
            self._next()

    def _next(self) -> None:
        self._num_done += 1
        self._on_ready(self._order[self._num_done - 1])

    def _finish(self) -> None:
        """Backward is over: what is left has parameters that got no gradient."""
        while self._num_done < len(self._order):
            self._next()
        self.in_backward = False
        if self._on_end is not None:
            self._on_end()
