"""A training run's events in words: a line every few seconds, not one a step.

How it works: `Progress()` is called with each event of the log, as the trainer and `start_training`
do, and prints what is worth a line.

Left out: curves; `read_log(folder).losses` are a list to plot.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import TextIO

from utils.trainer.log import Event


class Progress:
    """Prints events; steps at most every `every_s` seconds, the last one always."""

    def __init__(self, every_s: float = 2.0, stream: TextIO | None = None) -> None:
        self.every_s, self.stream = every_s, stream
        self._num_steps, self._last_s = 0, float("-inf")

    def __call__(self, event: Event) -> None:
        """Print the event, or leave it out."""
        line = getattr(self, f"_{event['event']}")(event)
        if line:
            with contextlib.suppress(OSError):  # a terminal that is gone does not end a run
                print(line, file=self.stream or sys.stdout, flush=True)

    def _start(self, event: Event) -> str:
        self._num_steps = event["settings"]["steps"]
        peak = f"{event['peak_flops_per_s'] / 1e12:.3g} TFLOP/s ({event['peak_source']})"
        return (
            f"{event['name']}: {event['num_parameters']:,} parameters, "
            f"{event['tokens_per_step']:,} tokens a step, on {event['device']}; "
            f"peak of a rank {peak}"
        )

    def _step(self, event: Event) -> str | None:
        now_s, is_last = time.monotonic(), event["step"] == self._num_steps
        if now_s - self._last_s < self.every_s and not is_last:
            return None
        self._last_s = now_s
        usd = "" if event["usd"] is None else f"  {dollars(event['usd'])}"
        return (
            f"step {event['step']:>5}/{self._num_steps}  loss {event['loss']:.4f}  "
            f"{event['tokens_per_s']:,.0f} tokens/s  MFU {event['mfu']:.1%}{usd}"
        )

    def _validation(self, event: Event) -> str:
        return f"step {event['step']:>5}  validation loss {event['loss']:.4f}"

    def _saved(self, event: Event) -> str:
        return f"step {event['step']:>5}  saved {event['folder']}"

    def _stopped(self, event: Event) -> None:
        """Nothing: the run's last sentence says it."""

    def _end(self, event: Event) -> str:
        usd = "" if event["usd"] is None else f", {dollars(event['usd'])}"
        peak_bytes = [each["peak_bytes"] for each in event["ranks"] if each["peak_bytes"]]
        peak = f", at most {max(peak_bytes):,} bytes on a rank" if peak_bytes else ""
        return f"finished after {event['seconds']:.1f} s of training{usd}{peak}"


def dollars(usd: float) -> str:
    """Cents from a dollar on, two digits that count below it: "$12.50", "$0.00089"."""
    if usd >= 1 or usd == 0:
        return f"${usd:,.2f}"
    return f"${usd:.{1 - math.floor(math.log10(usd))}f}"
