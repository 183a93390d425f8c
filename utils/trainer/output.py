"""What the processes of a run print: how sentences stand there, what is kept, why a run failed.

How it works: what the trainer itself has to say is a line that begins with `ERROR`. `KeptOutput`
keeps such lines wherever they stand, and the end of all the rest, within bounds, so that a run that
prints gigabytes costs little memory. `reason` looks for who was killed, for the trainer's own
sentence, and then for the last exception that stands before torchrun's report on its ranks.

Left out: which rank printed what; torchrun mixes them.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import TextIO

from utils.checks.helpers import one_line
from utils.trainer.command import ERROR

GONE = "Another rank is gone"  # said by ranks that a failure elsewhere has ended
KEPT_CHARACTERS = 100_000  # of the end at least, and twice as many at most
LINE_CHARACTERS, NUM_SENTENCES, SENTENCE_CHARACTERS = 20_000, 100, 1_500
# In torchrun's report on its ranks.
KILLED = re.compile(r"Root Cause.*?rank +: (\d+).*?exitcode +: -\d+ [^\n]*\((SIG\w+)\)", re.DOTALL)
REPORT = re.compile(r"^.*(failed \(exitcode: |\bChildFailedError:).*", re.MULTILINE)
AGENT = re.compile(r"[VIWEF]\d{4} .*torch/distributed/")
RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(:|$)")


class KeptOutput:
    """A bounded part of a stream of text."""

    def __init__(self) -> None:
        self.sentences: list[str] = []  # those of the trainer itself, the first of them
        self._lines: list[str] = []
        self._num_characters = 0

    @property
    def text(self) -> str:
        """The end of what was printed: all of it, if that was little."""
        return "".join(self._lines)

    def take(self, stream: TextIO) -> None:
        """All that arrives until the stream's end; a very long line comes in parts."""
        while line := stream.readline(LINE_CHARACTERS):
            if line.startswith(ERROR) and len(self.sentences) < NUM_SENTENCES:
                self.sentences.append(line.removeprefix(ERROR).strip())
            self._lines.append(line)
            self._num_characters += len(line)
            if self._num_characters > 2 * KEPT_CHARACTERS:
                kept = "".join(self._lines)[-KEPT_CHARACTERS:]
                self._lines, self._num_characters = [kept], len(kept)


def reason(code: int, text: str, sentences: Sequence[str]) -> str:
    """Why a run ended with this code: a sentence of bounded length."""
    killed = KILLED.search(text)
    if killed or code < 0:
        who = f"Rank {killed[1]}" if killed else "The trainer"
        return _killed(who, killed[2] if killed else signal.Signals(-code).name)
    if sentences:  # one that names the failure before those of ranks that it has ended
        return one_line(min(sentences, key=lambda each: GONE in each), SENTENCE_CHARACTERS)
    words = one_line(_last_words(text), SENTENCE_CHARACTERS)
    return f"The training ended with exit code {code}: {words}"


def _killed(who: str, name: str) -> str:
    if name in ("SIGKILL", "SIGTERM"):
        how = f"was ended from outside ({name}), as the system does when memory runs out"
    else:
        how = f"crashed ({name})"
    return f"{who} {how}: --resume goes on from the last checkpoint."


def _last_words(text: str) -> str:
    """The last exception before torchrun's report, or the last line that has any words."""
    report = REPORT.search(text)
    lines = [line.rstrip() for line in text[: report.start() if report else None].splitlines()]
    told = [line for line in lines if any(map(str.isalnum, line)) and not AGENT.match(line)]
    raised = [line for line in told if RAISED.match(line)]
    return (raised or told or ["it said nothing"])[-1]
