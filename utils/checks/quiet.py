"""Run a learner's code without letting it flood, disturb or depend on what is around it.

How it works: `sealed` catches what is printed, keeps the first lines of it, and gives random
numbers a fixed start, so that a verdict depends on the answer alone.
Left out: stderr and warnings (progress bars, rates, paths) are dropped; `display()` and what C code
prints pass through; numpy's and a GPU's random numbers stay as they are.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
import warnings
from collections.abc import Iterator

MAX_LINES, MAX_LINE_CHARACTERS, MAX_CHARACTERS = 20, 160, 8_000


class Printed(io.TextIOBase):
    """Stands in for stdout: keeps the first lines that are printed and drops the rest."""

    def __init__(self) -> None:
        self._text, self._dropped = "", False

    def write(self, text: str) -> int:
        room = MAX_CHARACTERS - len(self._text)
        self._dropped |= len(text) > room
        self._text += text[:room]
        return len(text)

    def lines(self) -> list[str]:
        """Return at most MAX_LINES lines, then one that says so when more was printed."""
        lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in self._text.split("\n")]
        lines = ["".join(c if c.isprintable() else " " for c in line) for line in lines]
        lines = lines[:-1] if not lines[-1] else lines
        cut = self._dropped or len(lines) > MAX_LINES
        shown = [line[:MAX_LINE_CHARACTERS] for line in lines[:MAX_LINES]]
        return [*shown, "(the rest is not shown)"] if cut else shown


@contextlib.contextmanager
def sealed(printed: Printed) -> Iterator[None]:
    """Catch stdout in `printed`, drop stderr and warnings, draw the same random numbers each time.

    Random numbers of `random` and of torch on the CPU start from seed 0 and go on afterwards as if
    nothing had been drawn: the same answer gets the same verdict, wherever it is checked.
    """
    torch, state = sys.modules.get("torch"), random.getstate()
    dtype = torch.get_default_dtype() if torch else None
    fork = torch.random.fork_rng(devices=[]) if torch else contextlib.nullcontext()
    quiet = contextlib.redirect_stderr(Printed())
    with fork, warnings.catch_warnings(), quiet, contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")
        random.seed(0)
        if torch:
            torch.random.default_generator.manual_seed(0)
            torch.set_default_dtype(torch.float32)  # models and truths are made in it
        try:
            yield
        finally:
            random.setstate(state)
            if torch:
                torch.set_default_dtype(dtype)
