"""The step with an optimizer that is spread over the ranks (ZeRO-1), as tasks.

How it works: each rank updates its share of the weights. Gradients are therefore only
reduce-scattered, during backward; the new weights are all-gathered bucket by bucket, the first
layers first, while forward of the next step already runs. One step of the steady state begins with
those gathers. A layer's forward waits for the buckets that hold its tensors.

Left out: the optimizer's own time, which comes between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from utils.simulate.buckets import BUCKET_BYTES, FIRST_BUCKET_BYTES, assign_buckets
from utils.simulate.data_parallel import (
    Seconds,
    backward_tasks,
    check_micro_batches,
    forward_tasks,
    gradient_bytes,
    local_seconds,
    local_task,
    owners,
)
from utils.simulate.layers import Layer
from utils.simulate.timeline import COMMUNICATION, Task


def sharded_optimizer(
    layers: Sequence[Layer],
    reduce_scatter_s: Seconds,
    all_gather_s: Seconds,
    gradient_value_bytes: int = 4,
    weight_value_bytes: int = 2,
    num_micro_batches: int = 1,
    first_bytes: int = FIRST_BUCKET_BYTES,
    bucket_bytes: int = BUCKET_BYTES,
) -> list[Task]:
    """Tasks of one step: weights are gathered in forward, gradients scattered in backward."""
    check_micro_batches(num_micro_batches)
    sizes = gradient_bytes(layers, gradient_value_bytes)
    buckets = assign_buckets(sizes, first_bytes, bucket_bytes)
    bucket_sizes = [sum(sizes[place] for place in bucket) for bucket in buckets]
    tasks = []
    for number in reversed(range(len(buckets))):
        num_bytes = bucket_sizes[number] * weight_value_bytes / gradient_value_bytes
        tasks.append(Task(f"all-gather {number}", COMMUNICATION, all_gather_s(num_bytes)))
    tasks += _forward_after_gathers(layers, buckets)
    last, local_s = num_micro_batches - 1, local_seconds(layers)
    if last:
        tasks += backward_tasks(layers, 0)
        tasks += [local_task(local_s, micro) for micro in range(1, last)]
        tasks += forward_tasks(layers, last)
    tasks += backward_tasks(layers, last)
    names = owners(layers)
    for number, bucket in enumerate(buckets):
        ready = f"backward {last} {names[min(bucket)]}"
        seconds = reduce_scatter_s(bucket_sizes[number])
        tasks.append(Task(f"reduce-scatter {number}", COMMUNICATION, seconds, (ready,)))
    return tasks


def _forward_after_gathers(
    layers: Sequence[Layer], buckets: Sequence[Sequence[int]]
) -> list[Task]:
    """The first micro-batch's forward; each layer waits for the last gather it needs."""
    bucket_of = {place: number for number, bucket in enumerate(buckets) for place in bucket}
    tasks, place = [], 0
    for task, layer in zip(forward_tasks(layers, 0), layers, strict=True):
        needed = [bucket_of[place + i] for i in range(len(layer.tensor_sizes))]
        place += len(layer.tensor_sizes)
        # Gathers run from the last bucket to the first, so the smallest number comes last.
        tasks.append(replace(task, after=(f"all-gather {min(needed)}",) if needed else ()))
    return tasks
