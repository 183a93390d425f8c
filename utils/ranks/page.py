"""The last collective of each rank, on pages that outlive the rank.

How it works: each rank has a page of a file that it and the notebook's process map into their
memory. Before each collective it notes there what it calls and from which line; so when gloo aborts
a rank, or a rank never answers, the notebook's process still knows what it did last. A short word
for each of its last collectives stays too: ranks whose words of the same turn differ do not agree.
Left out: any lock. A page is read when its rank is dead or stands still.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from utils.ranks.whereabouts import Line, callers_line

if TYPE_CHECKING:
    from utils.ranks.calls import Call  # with torch, which a page alone does not need

TEXT_BYTES, NUM_TURNS = 1024, 64
_HEAD = struct.Struct("QH")  # number of calls so far, length of the text
_TURN = struct.Struct("III")  # group, how many calls it has had, what was called
PAGE_BYTES = TEXT_BYTES + NUM_TURNS * _TURN.size


class Noted(NamedTuple):
    """A collective as noted: enough to name it in a sentence."""

    kind: str
    num_values: int
    dtype: str
    root: int
    line: Line | None


class Page:
    """One rank's page; `calls` and `last` read it, `note` writes it."""

    def __init__(self, path: str, rank: int) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._start, self._calls = rank * PAGE_BYTES, 0
        self._turns: dict[int, int] = {}

    @property
    def calls(self) -> int:
        """How many collectives the rank has called so far."""
        return _HEAD.unpack_from(self._memory, self._start)[0]

    def last(self) -> Noted | None:
        """The rank's last collective, None before the first."""
        calls, length = _HEAD.unpack_from(self._memory, self._start)
        if not calls:
            return None
        start = self._start + _HEAD.size
        try:
            *words, line = json.loads(self._memory[start : start + length])
        except ValueError:  # the rank died while it wrote
            return None
        return Noted(*words, Line(*line) if line else None)

    def turns(self) -> dict[tuple[int, int], int]:
        """What the rank's last collectives were, by group and turn; without send and recv."""
        entries = self._memory[self._start + TEXT_BYTES : self._start + PAGE_BYTES]
        return {(group, turn): word for group, turn, word in _TURN.iter_unpack(entries) if turn}

    def note(self, call: Call) -> None:
        """Write down a `utils.ranks.calls.Call`, with the line that led to it."""
        self._calls += 1
        words = (call.kind, call.num_values, call.dtype, call.root, callers_line())
        text = json.dumps(words).encode()
        if len(text) > TEXT_BYTES - _HEAD.size:  # a very long path
            text = json.dumps((*words[:-1], None)).encode()
        start = self._start + _HEAD.size
        self._memory[start : start + len(text)] = text
        _HEAD.pack_into(self._memory, self._start, self._calls, len(text))
        if call.kind not in ("send", "recv"):  # which have turns of their own
            self._note_turn(call)

    def _note_turn(self, call: Call) -> None:
        num_values = 0 if call.kind == "all_to_all" else call.num_values  # it may differ by rank
        group = zlib.crc32(repr(call.group_ranks).encode())
        turn = self._turns[group] = self._turns.get(group, 0) + 1
        word = zlib.crc32(f"{call.kind} {num_values} {call.dtype}".encode())
        start = self._start + TEXT_BYTES + self._calls % NUM_TURNS * _TURN.size
        _TURN.pack_into(self._memory, start, group, turn, word)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def make_pages(path: str, world_size: int) -> list[Page]:
    """Make the file of pages at `path` (it exists and is empty) and map all of them."""
    with open(path, "r+b") as file:
        file.truncate(world_size * PAGE_BYTES)
    return [Page(path, rank) for rank in range(world_size)]
