"""The step of data parallelism as tasks: all-reduce after backward, or during it.

How it works: compute runs forward through the layers and backward through them in reverse. A
message of gradients may leave when backward has passed every layer that has a tensor in it.

    after_backward   one message a tensor, when backward is over: utils.techniques.data_parallel's
                     `average_gradients`
    overlapped       buckets, each as soon as it is complete: its `DataParallel`, and torch's DDP

With several micro-batches only the last one sends (`no_sync`), unless `sync_each` is set; of a
micro-batch that sends nothing, forward and backward are one task. A builder for another method
stands beside this one, in a module of its own.

Left out: copying gradients into buckets, and torch's first step, in which nothing overlaps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from utils.simulate.buckets import BUCKET_BYTES, FIRST_BUCKET_BYTES, assign_buckets
from utils.simulate.layers import Layer
from utils.simulate.timeline import COMMUNICATION, COMPUTE, Task

Seconds = Callable[[float], float]  # bytes of a message -> its seconds


def after_backward(
    layers: Sequence[Layer],
    all_reduce_s: Seconds,
    value_bytes: int = 4,
    num_micro_batches: int = 1,
    sync_each: bool = False,
) -> list[Task]:
    """Tasks of the naive step: nothing is sent before backward is over."""
    one_each = [[place] for place in range(len(gradient_bytes(layers, value_bytes)))]
    return _step(layers, all_reduce_s, value_bytes, num_micro_batches, sync_each, one_each, False)


def overlapped(
    layers: Sequence[Layer],
    all_reduce_s: Seconds,
    value_bytes: int = 4,
    num_micro_batches: int = 1,
    sync_each: bool = False,
    first_bytes: int = FIRST_BUCKET_BYTES,
    bucket_bytes: int = BUCKET_BYTES,
) -> list[Task]:
    """Tasks of the step with buckets that travel while backward goes on."""
    sizes = gradient_bytes(layers, value_bytes)
    buckets = assign_buckets(sizes, first_bytes, bucket_bytes)
    return _step(layers, all_reduce_s, value_bytes, num_micro_batches, sync_each, buckets, True)


def gradient_bytes(layers: Sequence[Layer], value_bytes: int) -> list[int]:
    """Bytes of the gradient of each parameter tensor, in the model's order."""
    if value_bytes < 1:
        raise ValueError(f"A gradient's value has at least 1 byte, not {value_bytes}.")
    return [size * value_bytes for layer in layers for size in layer.tensor_sizes]


def forward_tasks(layers: Sequence[Layer], micro: int, after: tuple[str, ...] = ()) -> list[Task]:
    """Forward through all layers; the first one waits for `after`."""
    return [
        Task(f"forward {micro} {layer.name}", COMPUTE, layer.forward_s, () if index else after)
        for index, layer in enumerate(layers)
    ]


def backward_tasks(layers: Sequence[Layer], micro: int) -> list[Task]:
    """Backward through all layers, the last one first."""
    return [
        Task(f"backward {micro} {layer.name}", COMPUTE, layer.backward_s)
        for layer in reversed(layers)
    ]


def local_seconds(layers: Sequence[Layer]) -> float:
    """Seconds of forward and backward through all layers."""
    return sum(layer.forward_s + layer.backward_s for layer in layers)


def local_task(seconds: float, micro: int) -> Task:
    """Forward and backward of a micro-batch that sends nothing, as one task."""
    return Task(f"forward and backward {micro}", COMPUTE, seconds)


def owners(layers: Sequence[Layer]) -> list[str]:
    """The name of the layer of each parameter tensor; backward reaches the smallest place last."""
    return [layer.name for layer in layers for _ in layer.tensor_sizes]


def check_micro_batches(num_micro_batches: int) -> None:
    """Raise ValueError unless there is at least one micro-batch."""
    if num_micro_batches < 1:
        raise ValueError(f"A step has at least 1 micro-batch, not {num_micro_batches}.")


def _step(
    layers: Sequence[Layer], all_reduce_s: Seconds, value_bytes: int, num_micro_batches: int,
    sync_each: bool, buckets: Sequence[Sequence[int]], overlaps: bool,
) -> list[Task]:  # fmt: skip
    check_micro_batches(num_micro_batches)
    sizes, names = gradient_bytes(layers, value_bytes), owners(layers)
    local_s = local_seconds(layers)
    tasks: list[Task] = []
    sent: tuple[str, ...] = ()  # what the next forward waits for
    for micro in range(num_micro_batches):
        if not sync_each and micro < num_micro_batches - 1:
            tasks.append(local_task(local_s, micro))
            continue
        tasks += forward_tasks(layers, micro, after=sent)
        tasks += backward_tasks(layers, micro)
        last = tasks[-1].name
        for number, bucket in enumerate(buckets):
            ready = f"backward {micro} {names[min(bucket)]}" if overlaps else last
            seconds = all_reduce_s(sum(sizes[place] for place in bucket))
            tasks.append(Task(f"all-reduce {micro} {number}", COMMUNICATION, seconds, (ready,)))
        sent = (tasks[-1].name,)
    return tasks
