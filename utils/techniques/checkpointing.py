"""Activation checkpointing by hand: keep a layer's inputs, and run it again for backward.

How it works, twice. `checkpoint_by_function` is an autograd.Function: forward runs without a graph,
backward runs the layer once more with one and goes through that. `checkpoint_by_hooks` lets forward
build its graph, but gives the graph a ticket in place of each tensor that it saves; the first
ticket that backward turns in makes the layer run again, until the last saved tensor is back.
Both replay random numbers and autocast (replay.py). Both are told apart from torch's only by name:
`torch.utils.checkpoint.checkpoint` has the first as use_reentrant=True, the second as False.

Left out: for the first, torch.autograd.grad, second derivatives, and tensors with a history that
the function reads without being given them; for both, functions that do something else when they
run again, as with weights that an optimizer changed before backward.
"""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from utils.techniques.replay import Call, Rest, join, kind_of, ran_otherwise, split

Checkpoint = Callable[..., Any]  # checkpoint(function, *args, **kwargs) -> what function returns
NO_BACKWARD = -1  # autograd's number of the backward pass that runs now, if none does


def checkpoint_by_function(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """function(*args, **kwargs) that keeps nothing but its input tensors for backward.

    Tensors may stand anywhere in nested tuples, lists and dicts of arguments and results; every
    floating-point result asks for gradients. Raises RuntimeError if they are asked for other than
    by a plain `backward()`, or if the second run's results are of another kind.
    """
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    call = Call(function, args, kwargs)
    # Weights inside need gradients even if no input does: something here must ask for one.
    anchor = torch.empty(0, requires_grad=True)
    rests: list[Rest] = []
    outputs = _RunTwice.apply(call, rests, anchor, *call.release())
    return join(outputs, *rests)


class _RunTwice(torch.autograd.Function):
    """Forward without a graph; backward runs it again, with one, and goes through that."""

    @staticmethod
    def forward(
        ctx: Any, call: Call, rests: list[Rest], anchor: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        outputs, rest = split(call.run(inputs))  # grad mode is off in here
        rests.append(rest)
        ctx.kinds = list(map(kind_of, outputs))
        # Autograd ties what it gets from here to this node: never a weight that was passed through.
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple:
        _require_plain_backward()
        inputs = [
            tensor.detach().requires_grad_(is_needed)  # a graph of its own, which ends here
            for tensor, is_needed in zip(ctx.saved_tensors, ctx.needs_input_grad[3:], strict=True)
        ]
        with torch.enable_grad(), ctx.call.state.replay():
            outputs, _ = split(ctx.call.run(inputs))
        if (kinds := list(map(kind_of, outputs))) != ctx.kinds:
            raise ran_otherwise(f"its results were {ctx.kinds}, now {kinds}")
        pairs = zip(outputs, gradients, strict=True)
        roots = [(out, grad) for out, grad in pairs if out.requires_grad and grad is not None]
        if roots:
            torch.autograd.backward(*map(list, zip(*roots, strict=True)))
        return None, None, None, *(tensor.grad for tensor in inputs)


def _require_plain_backward() -> None:
    """Backward that asks for chosen gradients, or for a graph of itself, would get wrong ones."""
    if torch.is_grad_enabled() or not torch.autograd._is_checkpoint_valid():
        raise RuntimeError(
            "checkpoint_by_function works with a plain backward() only, not with "
            "torch.autograd.grad, inputs=... or create_graph=True. Use checkpoint_by_hooks."
        )


def checkpoint_by_hooks(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """function(*args, **kwargs) that keeps nothing but its input tensors for backward.

    Works with backward(), torch.autograd.grad and second derivatives, and nested. Raises
    RuntimeError in backward if the second run saves other tensors than the first.
    """
    return checkpoint_with(nullcontext(), nullcontext(), function, *args, **kwargs)


def checkpoint_with(
    first: AbstractContextManager, again: AbstractContextManager,
    function: Callable, *args: Any, **kwargs: Any,
) -> Any:  # fmt: skip
    """As `checkpoint_by_hooks`, the first run inside `first`, each further one inside `again`."""
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    call = Call(function, args, kwargs)
    frame = _Frame(call, tensors := call.release(), again)
    with saved_tensors_hooks(frame.pack, frame.unpack), first:
        return call.run(tensors)


class _Keep(torch.autograd.Function):
    """Saves tensors as an operation does, so that a checkpoint around this one can drop them."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.new_empty(0)


class _AllBack(BaseException):  # not an Exception: a function may catch those
    """Ends a second run as soon as the last saved tensor is there."""


@dataclass(eq=False)
class _Ticket:
    """What the graph holds in place of a saved tensor."""

    number: int
    kind: tuple


class _Frame:
    """One checkpointed call: how to run it again, and the tensors that this brought back."""

    def __init__(self, call: Call, tensors: list[Tensor], again: AbstractContextManager) -> None:
        self._call, self._again = call, again
        # The result, not its node alone: with it torch 2.11 would let go of what the node keeps.
        self._inputs = _Keep.apply(torch.empty(0, requires_grad=True), *tensors)
        self._tickets: list[weakref.ref] = []  # in the order of saving
        self._back: dict[int, tuple[Tensor, int]] = {}  # with how often it had been changed
        self._task = NO_BACKWARD

    def pack(self, tensor: Tensor) -> _Ticket:
        """Autograd saves a tensor: give it a ticket instead."""
        ticket = _Ticket(len(self._tickets), kind_of(tensor))
        self._tickets.append(weakref.ref(ticket))
        return ticket

    def unpack(self, ticket: _Ticket) -> Tensor:
        """Backward wants a tensor: run again unless it is there, and let go of it."""
        task = torch._C._current_graph_task_id()
        if task != self._task or ticket.number not in self._back:
            self._back, self._task = self._run_again(), task
            if task != NO_BACKWARD:  # what this backward pass does not want must go with it
                torch.autograd.Variable._execution_engine.queue_callback(self._back.clear)
        tensor, num_changes = self._back.pop(ticket.number)
        if task == NO_BACKWARD:
            self._back.clear()
        if tensor._version != num_changes:
            raise RuntimeError(
                "A checkpointed function changed a tensor in place that backward needs as it was: "
                f"{ticket.kind}. Use the operation that makes a new tensor."
            )
        return tensor

    def _run_again(self) -> dict[int, tuple[Tensor, int]]:
        back: dict[int, tuple[Tensor, int]] = {}
        numbers = count()

        def collect(tensor: Tensor) -> Tensor:
            number, tensor = next(numbers), tensor.detach()
            ticket = self._tickets[number]() if number < len(self._tickets) else None
            if ticket is not None:  # else nobody can ask for it any more
                if kind_of(tensor) != ticket.kind:
                    raise ran_otherwise(f"tensor {number} was {ticket.kind}, now {kind_of(tensor)}")
                back[number] = tensor, tensor._version
            if number + 1 >= len(self._tickets):
                raise _AllBack
            return tensor

        # Before all else: a checkpoint around may run for them.
        inputs = self._inputs.grad_fn.saved_tensors
        hooks = saved_tensors_hooks(collect, lambda tensor: tensor)
        try:
            with torch.enable_grad(), self._call.state.replay(), hooks, self._again:
                self._call.run(inputs)
        except _AllBack:
            pass
        if (num_back := next(numbers)) < len(self._tickets):
            raise ran_otherwise(f"it saved {len(self._tickets)} tensors at first, now {num_back}")
        return back
