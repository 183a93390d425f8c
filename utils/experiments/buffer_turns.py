"""Five layers that take turns in two buffers: the smallest schedule that shows everything.

How it works: a layer computes 2 ms forward and 4 ms backward, and each of its messages takes
1.5 ms, so that a message which does not wait meets a layer that still computes.
Left out: norms, and anything measured.
"""

from __future__ import annotations

from utils.simulate import Access, Layer, Task, buffer_accesses, two_buffers

LAYERS = tuple(Layer(str(number), 2e-3, 4e-3, (1,)) for number in range(5))


def five_layers() -> tuple[list[Task], list[Access]]:
    """The tasks of one step, and which of them fills and which reads which buffer."""
    return two_buffers(LAYERS, _message_s, _message_s, 1, 1), buffer_accesses(LAYERS)


def _message_s(num_bytes: float) -> float:
    """Seconds of a layer's message; its one value is one byte."""
    return 1.5e-3 * num_bytes
