"""What fits: the peak of a step on any device, running out of memory, the largest batch.

How it works: on a GPU the allocator knows the peak, on a CPU the memory meter. `survive` turns
running out of memory into None and gives back what was taken. `largest_batch` guesses along a
straight line, for a peak grows by the same bytes with each sequence, and checks every guess.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from utils.memory import measure_memory

Result = TypeVar("Result")


class DoesNotFit(RuntimeError):
    """It is known without a try that this does not fit."""


def survive(action: Callable[[], Result]) -> Result | None:
    """What `action()` returns, or None if memory ran out."""
    try:
        return action()
    except RuntimeError as error:
        if not _is_about_memory(error):
            raise
    give_back()  # only here: the traceback held the tensors of the step that failed
    return None


def _is_about_memory(error: RuntimeError) -> bool:
    # Libraries under torch report a failed allocation in words of their own.
    words = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
    known = isinstance(error, (torch.OutOfMemoryError, DoesNotFit))
    return known or any(word in str(error) for word in words)


def give_back() -> None:
    """Return unused memory of a GPU, so that the next size starts from the same state."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def peak_bytes(step: Callable[[], object], model: nn.Module, device: str) -> int:
    """Peak of one step, the model's weights and gradients included."""
    if device == "cpu":
        return measure_memory(step, model).peak_bytes
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def largest_batch(
    peak_of: Callable[[int], int | None], limit_bytes: int, first: int, most: int = 65_536
) -> int:
    """The largest batch size whose peak is within `limit_bytes`; 0 if not even one sequence fits.

    `peak_of(batch_size)` is None where memory runs out. `first` is where to start, `most` the end.
    """
    fits: dict[int, int] = {}
    too_large, size = most + 1, min(first, most)
    while True:
        peak = peak_of(size)
        if peak is not None and peak <= limit_bytes:
            fits[size] = peak
        else:
            too_large = size
        best = max(fits, default=0)
        if too_large - best <= 1:
            return best
        guess = _guess(fits, limit_bytes)
        size = max(guess, best + 1) if guess < too_large else (best + too_large) // 2


def _guess(fits: dict[int, int], limit_bytes: int) -> int:
    """Where the line through the two largest batches that fit meets the limit."""
    last, before = (*sorted(fits, reverse=True), 0, 0)[:2]
    slope = (fits.get(last, 0) - fits.get(before, 0)) / max(last - before, 1)
    return last + int((limit_bytes - fits[last]) / slope) if slope > 0 else 2 * last
