"""What a rank printed: kept within bounds, labelled, the same on every run.

How it works: ranks print into pipes that the notebook's process empties while they run, so a rank
never waits for a full pipe. The first 100,000 bytes are kept, and shown in rank order when all
ranks have ended. Left out: prints as they happen; between ranks their order differs in each run.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence

MAX_BYTES = 100_000
READ_BYTES = 65_536
_STAMP = re.compile(r"^\[[VIWEF]\d{4} [\d:.]+ ([^\s:]+):\d+\] ?")  # of torch's C++ log
_OF_AN_ABORT = ("terminate called", "  what():")  # names files of gloo; the report says it


class Captured:
    """The beginning of what arrives on a descriptor; it is read without waiting."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor, self.open = descriptor, True
        self._kept, self._dropped = bytearray(), False

    def read(self) -> None:
        """Take what is there; at its end `open` becomes False."""
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        self.open = bool(data)
        room = MAX_BYTES - len(self._kept)
        self._kept += data[:room]
        self._dropped |= len(data) > room

    def drain(self) -> None:
        """Take all that a dead rank has left, even if a process that it started still prints."""
        for _ in range(2 * MAX_BYTES // READ_BYTES + 2):
            before = len(self._kept)
            self.read()
            if not self.open or len(self._kept) == before:
                break

    def lines(self) -> list[str]:
        """Whole lines; the last one says so when more was printed than was kept."""
        lines = self._kept.decode("utf-8", "replace").split("\n")
        lines = lines[:-1] if self._dropped or not lines[-1] else lines
        lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines]
        lines = [_STAMP.sub(r"[\1] ", line) for line in lines if not line.startswith(_OF_AN_ABORT)]
        more = f"(more was printed; only the first {MAX_BYTES:,} bytes are shown)"
        return [*lines, more] if self._dropped else lines


def show(outputs: Sequence[Captured], errors: Sequence[Captured]) -> None:
    """Print the ranks' lines, labelled, in rank order: to stdout, then to stderr."""
    for stream, captured in ((sys.stdout, outputs), (sys.stderr, errors)):
        text = "\n".join(_labelled(captured))
        if text:
            print(text, file=stream, flush=True)


def _labelled(captured: Sequence[Captured]) -> Iterable[str]:
    for rank, each in enumerate(captured):
        for line in each.lines():
            yield f"[rank {rank}] {line}".rstrip()
