"""The step of FSDP (ZeRO-3) as tasks: gather a layer, use it, free it, scatter its gradients.

How it works: every rank holds 1/N of each layer. All weights of a layer are gathered before its
forward and again before its backward; its gradients are reduce-scattered after its backward. All
messages share one stream, in the order in which torch's FSDP issues them.

A gather may begin when the layers before it leave room. `forward_prefetch` and `backward_prefetch`
say how many layers are asked for ahead of the one that computes: 0 waits until the layer's turn
has come, 1 is the usual setting (forward_prefetch=True, BACKWARD_PRE). `max_gathered` layers exist
at most at a time; FSDP1's rate limiter (limit_all_gathers) lets two be outstanding.

What FSDP does beside computing and sending is left to three costs, all 0 unless given:
`before_gather_s` holds the messages up before each gather (memory is allocated, the processor
waits for an event), `free_s` holds compute up after each use (memory is freed),
`gradient_copies_s` is work on device memory before a reduce-scatter, see `FullySharded`.

Left out: gradients kept on a limit of memory, the root unit that FSDP2 does not free, the
processor's own time, the optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.simulate.data_parallel import Seconds
from utils.simulate.layers import Layer
from utils.simulate.timeline import COMMUNICATION, COMPUTE, Task


@dataclass(frozen=True)
class FullySharded:
    """When weights are gathered and freed, and what that costs beside the wire.

    `gradient_copies_s` (values of a layer -> seconds) is the casting, dividing and copying of a
    layer's gradients. It is kept from running beside a gather or a layer: it begins when the
    gather under way is over, and the next layer's backward begins after it.
    """

    forward_prefetch: int = 1
    backward_prefetch: int = 1
    reshard_after_forward: bool = True  # False keeps the weights until backward: ZeRO-2
    max_gathered: int = 2  # layers that are gathered or being gathered at the same time
    before_gather_s: float = 0.0
    free_s: float = 0.0
    gradient_copies_s: Seconds | None = None

    def __post_init__(self) -> None:
        if min(self.forward_prefetch, self.backward_prefetch) < 0:
            raise ValueError("A prefetch is 0 layers (none) or more.")
        if self.max_gathered < 1:
            raise ValueError(
                f"max_gathered is {self.max_gathered}; a layer that is used is gathered: 1 or more."
            )
        if min(self.before_gather_s, self.free_s) < 0:
            raise ValueError("before_gather_s and free_s are 0 seconds or more.")

    @property
    def ahead_in_forward(self) -> int:
        """Layers gathered ahead of the one that computes; what is kept takes no room twice."""
        room = self.max_gathered - 1 if self.reshard_after_forward else self.forward_prefetch
        return min(self.forward_prefetch, room)

    @property
    def ahead_in_backward(self) -> int:
        """The same in backward."""
        return min(self.backward_prefetch, self.max_gathered - 1)


def fully_sharded(
    layers: Sequence[Layer],
    all_gather_s: Seconds,
    reduce_scatter_s: Seconds,
    weight_value_bytes: int = 2,
    gradient_value_bytes: int = 4,
    how: FullySharded = FullySharded(),
) -> list[Task]:
    """Tasks of one step, in the order of issue; both functions take the bytes of a whole layer.

    Names: "gather forward NAME", "forward NAME", "gather backward NAME", "backward NAME",
    "reduce-scatter NAME"; beside them "allocate ...", "free ..." and "backward copies NAME" for
    costs that are not 0. Raises ValueError without layers, or for values of less than a byte.
    """
    check_layers(layers, weight_value_bytes, gradient_value_bytes)
    gathers_s = [all_gather_s(layer.num_values * weight_value_bytes) for layer in layers]
    tasks = _forward(layers, gathers_s, how)
    waiting = list(reversed(range(len(layers)))) if how.reshard_after_forward else []
    for place in reversed(range(len(layers))):
        name = layers[place].name
        while waiting and waiting[0] >= place - how.ahead_in_backward:
            tasks += _backward_gather(layers, waiting.pop(0), gathers_s, how)
        gathered = (f"gather backward {name}",) if how.reshard_after_forward else ()
        tasks.append(Task(f"backward {name}", COMPUTE, layers[place].backward_s, gathered))
        tasks += _free(f"backward {name}", how)
        is_under_way = how.reshard_after_forward and 0 < place and how.ahead_in_backward > 0
        after = f"gather backward {layers[place - 1].name}" if is_under_way else ""
        copies = _copies(layers[place], after, how)
        ready = copies[-1].name if copies else f"backward {name}"
        seconds = reduce_scatter_s(layers[place].num_values * gradient_value_bytes)
        tasks += [*copies, Task(f"reduce-scatter {name}", COMMUNICATION, seconds, (ready,))]
    return tasks


def check_layers(
    layers: Sequence[Layer], weight_value_bytes: int, gradient_value_bytes: int
) -> None:
    """Raise ValueError unless there is a layer, and a value has at least one byte."""
    if not layers:
        raise ValueError("A step needs at least one layer.")
    if min(weight_value_bytes, gradient_value_bytes) < 1:
        raise ValueError(
            "A value has at least 1 byte, not "
            f"{min(weight_value_bytes, gradient_value_bytes)}."
        )


def _forward(
    layers: Sequence[Layer], gathers_s: Sequence[float], how: FullySharded
) -> list[Task]:
    tasks: list[Task] = []
    frees = how.reshard_after_forward
    for place, layer in enumerate(layers):
        left = place - how.ahead_in_forward - 1  # the layer that must have left
        after = (_freed(f"forward {layers[left].name}", how, frees),) if left >= 0 else ()
        tasks += _gather(f"forward {layer.name}", gathers_s[place], after, how)
        gathered = (f"gather forward {layer.name}",)
        tasks.append(Task(f"forward {layer.name}", COMPUTE, layer.forward_s, gathered))
        tasks += _free(f"forward {layer.name}", how) if frees else []
    return tasks


def _backward_gather(
    layers: Sequence[Layer], place: int, gathers_s: Sequence[float], how: FullySharded
) -> list[Task]:
    """The gather of one layer: it waits for room, at the earliest for the end of forward."""
    later = place + how.ahead_in_backward + 1  # the layer that must have left
    passed = "backward" if later < len(layers) else "forward"
    name = layers[min(later, len(layers) - 1)].name
    after = (_freed(f"{passed} {name}", how, True),)
    return _gather(f"backward {layers[place].name}", gathers_s[place], after, how)


def _gather(
    what: str, seconds: float, after: tuple[str, ...], how: FullySharded
) -> list[Task]:
    gather = Task(f"gather {what}", COMMUNICATION, seconds, after)
    if not how.before_gather_s:
        return [gather]
    return [Task(f"allocate {what}", COMMUNICATION, how.before_gather_s, after), gather]


def _free(what: str, how: FullySharded) -> list[Task]:
    return [Task(f"free {what}", COMPUTE, how.free_s)] if how.free_s else []


def _freed(what: str, how: FullySharded, frees: bool) -> str:
    """The task after which the layer's memory is free."""
    return f"free {what}" if how.free_s and frees else what


def _copies(layer: Layer, after: str, how: FullySharded) -> list[Task]:
    if how.gradient_copies_s is None:
        return []
    seconds = how.gradient_copies_s(layer.num_values)
    waits = (after,) if after else ()
    return [Task(f"backward copies {layer.name}", COMPUTE, seconds, waits)]
