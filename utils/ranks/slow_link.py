"""A network as slow as you like: collectives that take as long as their bytes need on a given link.

How it works: one thread per rank is the link. It does the real collective and then sleeps until
bytes / bandwidth seconds have passed since it began, while the rank's own thread computes on. One
thread means one message at a time, and the same order on all ranks as long as all issue the same.

Do not mix it with collectives of the rank's own thread that may run meanwhile on the same group:
their order would differ between ranks. Left out: GPUs, whose collectives a stream runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from utils.ranks.events import EventLog
from utils.ranks.gloo_bytes import textbook_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributed import ProcessGroup, ReduceOp


class SlowWork:
    """A collective under way on a slow link, with the methods of torch's Work."""

    def __init__(self, future: Future, tensors: list[Tensor]) -> None:
        self._future, self._tensors = future, tensors

    def wait(self) -> bool:
        """Return when it is done, or raise what it has raised."""
        self._future.result()
        return True

    def is_completed(self) -> bool:
        """Whether it is done."""
        return self._future.done()

    def get_future(self) -> torch.futures.Future:
        """A future of torch with the list of tensors, as a communication hook of DDP returns it."""
        import torch

        promise: torch.futures.Future = torch.futures.Future()

        def keep(future: Future) -> None:
            error = future.exception()
            promise.set_exception(error) if error else promise.set_result(self._tensors)

        self._future.add_done_callback(keep)
        return promise


class SlowLink:
    """`link = SlowLink(bytes_per_s)` in a worker; `link.all_reduce(tensor)` returns at once.

    A message that fails is the link's last one: all later ones raise the same error. With an
    `EventLog` each collective is noted, from when its turn comes until it is done, under
    its name on the lane "communication".
    """

    def __init__(self, bytes_per_s: float, log: EventLog | None = None) -> None:
        if not bytes_per_s > 0:
            raise ValueError(f"bytes_per_s is {bytes_per_s!r}; give a number above 0.")
        self.bytes_per_s = bytes_per_s
        self._log = log
        self._error: BaseException | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slow link")

    def all_reduce(
        self, tensor: Tensor, op: ReduceOp | None = None, group: ProcessGroup | None = None
    ) -> SlowWork:
        """Sum (or `op`) in place; takes at least 2(N-1)/N of the tensor's bytes / bandwidth."""
        import torch.distributed as dist

        num_bytes = tensor.numel() * tensor.element_size()
        sent_bytes = textbook_bytes("all_reduce", num_bytes, dist.get_world_size(group))
        chosen = dist.ReduceOp.SUM if op is None else op
        return self.issue(
            partial(dist.all_reduce, tensor, chosen, group), sent_bytes, "all_reduce", [tensor]
        )

    def issue(
        self,
        collective: Callable[[], Any],
        num_bytes: float,
        name: str = "collective",
        tensors: list[Tensor] | None = None,
    ) -> SlowWork:
        """Run any blocking collective on the link, for at least `num_bytes` / bandwidth seconds."""
        future = self._thread.submit(self._carry, collective, num_bytes, name)
        return SlowWork(future, tensors or [])

    def close(self) -> None:
        """Wait for all that is under way and end the thread."""
        self._thread.shutdown()

    def __enter__(self) -> SlowLink:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _carry(self, collective: Callable[[], Any], num_bytes: float, name: str) -> None:
        if self._error is not None:  # those behind it would wait for ranks that it has left behind
            raise self._error
        begin_s = time.perf_counter()
        token = self._log.begin(name) if self._log else None
        try:
            collective()
            left_s = begin_s + num_bytes / self.bytes_per_s - time.perf_counter()
            time.sleep(max(0.0, left_s))
        except BaseException as error:
            self._error = error
            raise
        finally:
            if self._log and token is not None:
                self._log.end(token)
