"""Data parallelism: the same model on every rank, each with its own part of the batch.

How it works: the ranks start with rank 0's weights, and after every backward pass they average
their gradients; equal weights and equal gradients stay equal. `average_gradients` does it after
backward, one message a parameter. `DataParallel` does it during backward: a hook on each parameter
notes that its gradient is there, and a bucket that is complete starts on its way while backward
goes on. Buckets leave in the same order on all ranks, so that they meet the right ones. At the end
of backward everything that still travels is waited for.

Left out: uneven batches (the mean is over ranks, not over tokens), sparse gradients, gradients of
gradients, a model of which parts live on several devices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from utils.techniques.buckets import BUCKET_BYTES, FIRST_BUCKET_BYTES, StartSum, make_buckets

Group = dist.ProcessGroup | None


def broadcast_model(model: nn.Module, group: Group = None) -> None:
    """Give every rank the first rank's parameters and buffers."""
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), group=group, group_src=0)


def average_gradients(model: nn.Module, world_size: int, group: Group = None) -> None:
    """Replace each gradient by its mean over ranks; call it after backward."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=group)
            parameter.grad /= world_size


class DataParallel(nn.Module):
    """Wraps a model so that backward leaves the averaged gradients in `parameter.grad`.

    Every rank makes one, calls it, and calls backward, in the same order. `start_sum` sums a flat
    tensor over ranks and returns at once with something to wait for. `find_unused=True` walks
    through the graph after forward to find parameters that this step does not use.
    """

    def __init__(
        self, model: nn.Module, world_size: int, group: Group = None, *,
        start_sum: StartSum | None = None, first_bytes: int = FIRST_BUCKET_BYTES,
        bucket_bytes: int = BUCKET_BYTES, find_unused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.world_size, self.group = model, world_size, group
        self.start_sum = start_sum or partial(dist.all_reduce, group=group, async_op=True)
        self.find_unused, self.is_syncing = find_unused, True
        broadcast_model(model, group)
        wanted = [p for p in model.parameters() if p.requires_grad]
        self.buckets = make_buckets(wanted, first_bytes, bucket_bytes)
        self._num_started, self._has_end = len(self.buckets), False
        self._unused: set[nn.Parameter] = set()
        self._places = {p: (b, i) for b in self.buckets for i, p in enumerate(b.parameters)}
        for parameter in wanted:
            parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; buffers become those of the first rank first."""
        is_training = torch.is_grad_enabled() and self.is_syncing
        if is_training:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, group=self.group, group_src=0)
        result = self.model(*args, **kwargs)
        if is_training:
            self._expect_gradients(result)
        return result

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forward and backward in here add up gradients on this rank and send nothing."""
        before, self.is_syncing = self.is_syncing, False
        try:
            yield
        finally:
            self.is_syncing = before

    def _expect_gradients(self, result: Any) -> None:
        for bucket in self.buckets:
            bucket.expect_all()
        self._num_started, self._has_end = 0, False
        self._unused = _unreached(result, self._places) if self.find_unused else set()

    def _on_gradient(self, parameter: nn.Parameter) -> None:
        """Autograd has finished this gradient."""
        if not self.is_syncing:
            return
        if not self._has_end:  # the first one of this backward
            self._has_end = True
            torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)
            for unused in self._unused:
                self._take(unused)
        self._take(parameter)

    def _take(self, parameter: nn.Parameter) -> None:
        bucket, place = self._places[parameter]
        if place not in bucket.waiting:
            raise RuntimeError(
                f"{self._name(parameter)} got a gradient twice since forward: call the wrapped "
                "model once per backward, and use no_sync() for all micro-batches but the last."
            )
        bucket.take(place)
        while self._num_started < len(self.buckets):
            bucket = self.buckets[self._num_started]
            if bucket.waiting:
                break
            bucket.start(self.start_sum, self.world_size)
            self._num_started += 1

    def _end_backward(self) -> None:
        """Wait for what still travels."""
        missing = [p for p, (bucket, place) in self._places.items() if place in bucket.waiting]
        for bucket in self.buckets[: self._num_started]:
            bucket.work.wait()
        if missing:
            raise RuntimeError(
                f"{len(missing)} parameters got no gradient, {self._name(missing[0])} among them, "
                "and the other ranks wait for it. If that is meant, pass find_unused=True."
            )
        self._forget_unused()

    def _forget_unused(self) -> None:
        """A parameter that no rank used has no gradient, rather than one of zeros."""
        if not self.find_unused:
            return
        used = torch.ones(len(self._places), dtype=torch.uint8)
        used[[i for i, p in enumerate(self._places) if p in self._unused]] = 0
        dist.all_reduce(used, op=dist.ReduceOp.MAX, group=self.group)
        for parameter, is_used in zip(self._places, used.tolist(), strict=True):
            if is_used:
                bucket, place = self._places[parameter]
                parameter.grad = bucket.views[place]

    def _name(self, parameter: nn.Parameter) -> str:
        return next(name for name, each in self.model.named_parameters() if each is parameter)


def _unreached(result: Any, parameters: Any) -> set[nn.Parameter]:
    """The parameters to which no path leads back from the result."""
    left, seen = [], set()
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
            left.append(leaf.grad_fn)
    reached = set()
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        reached.add(getattr(node, "variable", None))
        left += [following for following, _ in node.next_functions if following is not None]
    return {parameter for parameter in parameters if parameter not in reached}
