"""What a memory meter saw: the peak, what it consisted of, and the whole timeline.

A report replays the meter's events (a storage came, went, or changed its size) once the purpose of
every storage is known. All figures are bytes and exact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

# In order of precedence: a storage that is both (a weight saved for backward) counts as the first.
CATEGORIES = ("parameters", "optimizer state", "gradients", "saved activations", "temporary")
MIB = 2**20
BEFORE = "before the first operation"


@dataclass(eq=False)
class LiveBlock:
    """One storage: its bytes, the operation that made it, and what it is for."""

    num_bytes: int
    made_by: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    category: str = "temporary"

    def label(self, category: str) -> None:
        """Take `category` unless the present one has precedence."""
        if CATEGORIES.index(category) < CATEGORIES.index(self.category):
            self.category = category


Event = tuple[LiveBlock, int, str]


@dataclass(frozen=True)
class MemoryReport:
    """Bytes over time; `timeline[category][i]` holds after event i."""

    peak_bytes: int
    peak_by_category: dict[str, int]
    peak_operation: str
    start_bytes: int
    end_bytes: int
    timeline: dict[str, np.ndarray]
    operations: tuple[str, ...]
    marks: tuple[tuple[str, int], ...]
    allocator_peak_bytes: int | None
    _events: tuple[Event, ...] = field(repr=False, default=())

    @classmethod
    def replay(
        cls,
        events: Sequence[Event],
        marks: Iterable[tuple[str, int]],
        allocator_peak_bytes: int | None = None,
    ) -> "MemoryReport":
        """Add the events up in order; the first of equal peaks is the peak."""
        owner = np.array([CATEGORIES.index(block.category) for block, _, _ in events], dtype=int)
        delta = np.array([change for _, change, _ in events], dtype=np.int64)
        timeline = {
            name: np.cumsum(np.where(owner == index, delta, 0))
            for index, name in enumerate(CATEGORIES)
        }
        total = np.cumsum(delta) if len(events) else np.zeros(1, dtype=np.int64)
        peak = int(total.argmax())
        operations = tuple(operation for _, _, operation in events)
        held = operations.count(BEFORE)
        return cls(
            peak_bytes=int(total[peak]),
            peak_by_category={name: int(timeline[name][peak]) for name in CATEGORIES if events},
            peak_operation=operations[peak] if events else "",
            start_bytes=int(total[held - 1]) if held else 0,
            end_bytes=int(total[-1]),
            timeline=timeline,
            operations=operations,
            marks=tuple(marks),
            allocator_peak_bytes=allocator_peak_bytes,
            _events=tuple(events),
        )

    @property
    def total(self) -> np.ndarray:
        """Bytes in all categories after each event."""
        return sum(self.timeline.values())

    @property
    def num_held_events(self) -> int:
        """How many of the first events only count what was alive when the meter started."""
        return max(0, self.operations.count(BEFORE) - 1)

    def highest(self, category: str) -> int:
        """The most bytes that one category ever held, at whatever moment."""
        values = self.timeline[category]
        return int(values.max()) if len(values) else 0

    def at_mark(self, name: str) -> dict[str, int]:
        """Bytes by category at a marked moment."""
        positions = [position for mark, position in self.marks if mark == name]
        if not positions:
            known = [mark for mark, _ in self.marks]
            raise KeyError(f"No mark is called {name!r}; the marks are {known}.")
        last = positions[0] - 1
        if last < 0:
            return dict.fromkeys(CATEGORIES, 0)
        return {key: int(values[last]) for key, values in self.timeline.items()}

    def live_at_peak(self, category: str | None = None) -> list[LiveBlock]:
        """The storages alive at the peak, largest first."""
        alive: dict[LiveBlock, int] = {}
        peak = int(self.total.argmax()) if self._events else -1
        for block, change, _ in self._events[: peak + 1]:
            alive[block] = alive.get(block, 0) + change
        wanted = CATEGORIES if category is None else (category,)
        blocks = [block for block, size in alive.items() if size and block.category in wanted]
        return sorted(blocks, key=lambda block: -block.num_bytes)
