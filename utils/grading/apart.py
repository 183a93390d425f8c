"""An answer in a process of its own: its judge sends arguments and gets plain values back.

How it works: `Distant` stands in for the answer. A call pickles the arguments (they come from the
course and are trusted) and sends them through a pipe; the answer's process calls the answer and
sends back what `plain.py` can write: nothing that would run in the judge's process. A list, dict
or tensor that the answer changed is changed for the judge too. What the answer raises becomes the
engine's sentence where it was raised, with the learner's line.

Left out: arguments that are more than their values (hooks, graphs, things that count their calls).
"""

from __future__ import annotations

import contextlib
import os
import pickle
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import cloudpickle

from utils.checks.blame import verdict_on
from utils.checks.engine import Exercise
from utils.grading.answers import Answer, Failed
from utils.grading.cage import confine, die_with_parent
from utils.grading.plain import Refused, copy_back, from_plain, to_plain
from utils.grading.reports import ending

MAX_REPLY_BYTES = 64 * 2**20
SLICE_S = 0.05  # a judge whose time is up is reached between two looks at the pipe


class Distant:
    """Calls an answer that lives in another process; start one with `start`."""

    def __init__(self, channel: Connection, process: int) -> None:
        self._channel, self._process = channel, process

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the answer; raises Failed for what it raises, or when its process ends."""
        try:
            self._channel.send_bytes(cloudpickle.dumps((args, kwargs)))
            while not self._channel.poll(SLICE_S):
                pass
            kind, *rest = from_plain(self._channel.recv_bytes(MAX_REPLY_BYTES))
        except (EOFError, BrokenPipeError, ConnectionError):
            raise Failed("not yet", self._ended()) from None
        except (OSError, Refused, ValueError):
            raise Failed("not yet", "The answer's process sent what is no value.") from None
        if kind == "failed":
            raise Failed(str(rest[0]), str(rest[1]))
        value, changed = rest
        for number, after in changed.items():
            copy_back(args[number], after)
        return value

    def _ended(self) -> str:
        _, status = os.waitpid(self._process, 0)
        return f"Your code ended its process ({ending(os.waitstatus_to_exitcode(status))})."


def start(answer: Answer, asked: Exercise, folder: Path, keep_closed: int) -> Distant:
    """Fork the answer's process, which may write in `folder`; it gets no `keep_closed`."""
    ours, theirs = Pipe()
    process = os.fork()
    if not process:
        try:
            os.close(keep_closed)
            ours.close()
            die_with_parent()
            confine(folder)
            os.chdir(folder)
            _serve(theirs, answer, asked)
        finally:
            os._exit(0)
    theirs.close()
    return Distant(ours, process)


def _serve(channel: Connection, answer: Answer, asked: Exercise) -> None:
    function: Any = None
    with contextlib.suppress(EOFError):
        while True:
            args, kwargs = pickle.loads(channel.recv_bytes())
            try:
                function = function or answer.load(asked.judge)
                before = [to_plain(value) for value in args]
                value = function(*args, **kwargs)
                reply = ("value", value, _changed(before, args))
            except Failed as failed:
                reply = ("failed", failed.status, failed.text)
            except BaseException as error:
                reply = ("failed", *verdict_on(error, asked.judge, function))
            channel.send_bytes(to_plain(reply))


def _changed(before: list[bytes], args: tuple) -> dict[int, Any]:
    pairs = zip(before, args, strict=True)
    return {k: value for k, (old, value) in enumerate(pairs) if to_plain(value) != old}
