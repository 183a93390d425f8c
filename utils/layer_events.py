"""When each layer computes, forward and backward, and when the rank only waits for a message.

How it works: `LayerWatch` puts hooks on the layers that note stretches of time in an `EventLog`,
and `RecordedLane` is a slow link that notes the same way each message, and each wait for one. A
backward begins when the gradient of a layer's result arrives and ends when that of the layer before
it does, so the weights' gradients are inside. A wait lies inside of a layer's stretch or between
two of them; `utils.timeline_plot` draws it on top.

Hooks run in the order in which they were made: make the watch after the model is sharded, so
that a layer begins when its weights are there. Left out: GPUs, where work outlasts its call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from utils.ranks import EventLog, SlowLink
from utils.ranks.slow_link import SlowWork

COMPUTE, WAITING = "compute", "waiting"


class RecordedLane:
    """A lane of `utils.techniques.lane` over a `SlowLink`, for one rank.

    `waits_at_once` makes the sender wait for every message. `record(log)` starts a new record.
    """

    def __init__(self, bytes_per_s: float, log: EventLog, waits_at_once: bool = False) -> None:
        self.bytes_per_s, self.waits_at_once = bytes_per_s, waits_at_once
        self.log, self._link = log, SlowLink(bytes_per_s, log)

    def record(self, log: EventLog) -> None:
        """From now on note in `log`; what is under way is waited for."""
        self._link.close()
        self.log, self._link = log, SlowLink(self.bytes_per_s, log)

    def issue(self, collective: Callable[[], Any], num_bytes: float, name: str) -> _Watched:
        """As `SlowLink.issue`."""
        pending = _Watched(self._link.issue(collective, num_bytes, name), self)
        if self.waits_at_once:
            pending.wait()
        return pending

    def close(self) -> None:
        """Wait for all that is under way."""
        self._link.close()


class _Watched:
    """A message under way; whoever waits for it is noted down as waiting."""

    def __init__(self, work: SlowWork, lane: RecordedLane) -> None:
        self._work, self._lane = work, lane

    def wait(self) -> None:
        if not self._work.is_completed():
            with self._lane.log.span(WAITING, COMPUTE):
                self._work.wait()
        self._work.wait()  # raises what the message has raised


class LayerWatch:
    """`LayerWatch(layers, log)` notes events "forward 0", "backward 0", ... on the lane "compute".

    `layers` in the order of forward; each takes and returns one tensor that needs a gradient. Set
    `.log` to note elsewhere from then on.
    """

    def __init__(self, layers: Sequence[nn.Module], log: EventLog) -> None:
        self.log = log
        self._forward = self._backward = 0
        for number, layer in enumerate(layers):
            layer.register_forward_hook(self._end_of_the_later, prepend=True)
            layer.register_forward_pre_hook(self._before(number, is_first=number == 0))
            layer.register_forward_hook(self._after(number))

    def _before(self, number: int, is_first: bool) -> Callable[..., None]:
        def begin(module: nn.Module, args: Any) -> None:
            if is_first:
                self._at_gradient(args, self._end_backward)
            self._forward = self.log.begin(f"forward {number}", COMPUTE)

        return begin

    def _after(self, number: int) -> Callable[..., None]:
        def end(module: nn.Module, args: Any, result: Any) -> None:
            self.log.end(self._forward)
            self._at_gradient(result, lambda: self._begin_backward(number))

        return end

    def _end_of_the_later(self, module: nn.Module, args: Any, result: Any) -> None:
        """This hook on the result comes before that which gathers the layer's weights."""
        self._at_gradient(result, self._end_backward)

    @staticmethod
    def _at_gradient(tensors: Any, act: Callable[[], None]) -> None:
        for leaf in tree_leaves(tensors):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(lambda _: act())

    def _begin_backward(self, number: int) -> None:
        self._backward = self.log.begin(f"backward {number}", COMPUTE)

    def _end_backward(self) -> None:
        if self._backward:
            self.log.end(self._backward)
            self._backward = 0
