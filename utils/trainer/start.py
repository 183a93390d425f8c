"""Start the trainer from a notebook: the recipe's very command, watched until it has ended.

How it works: the line of `recipe.command(...)` runs as a process in a session of its own, with one
thread a rank and its output kept. This process follows the log, hands each new event to `report`,
and at an interrupt, a time limit or an error ends all ranks: torchrun first, which ends its ranks,
then whoever is left. The ranks also watch a pipe from here (`group.watch_parent`), so that none
outlives a notebook whose kernel has been killed.

Left out: starting other machines; the command for those is `utils.trainer.commands`'.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.config import GPTConfig
from utils.recipe import TrainingRecipe
from utils.trainer.arguments import config_flags
from utils.trainer.folder import write_whole
from utils.trainer.log import LOG_NAME, Event, TrainingLog, read_events, read_log
from utils.trainer.process import WatchedProcess
from utils.trainer.settings import TrainerError

Report = Callable[[Event], None]


class TrainingFailed(TrainerError):
    """The run did not finish; the message is the trainer's own sentence, `output` what it printed.

    Both are bounded: of very much output the end is kept.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def start_training(
    recipe: TrainingRecipe,
    *options: str,
    folder: str | Path,
    config: GPTConfig | None = None,
    text: str | Path | None = None,
    timeout_s: float = 600.0,
    report: Report | None = None,
    prediction: dict[str, Any] | None = None,
) -> TrainingLog:
    """Train in `folder` by the recipe's command on this machine, and return its log.

    `options` are further words of the command line, as "--steps", "40". `report(event)` is called
    with each event of the log as it is written (`utils.trainer.progress.Progress` prints them).
    `prediction`, names and plain values, is kept in the log and as prediction.json in the folder.
    Nothing else is written or printed. Raises TrainingFailed, in one sentence, when the run fails
    or takes longer than `timeout_s`; in every case all its processes have ended.
    """
    if prediction is not None:
        options = (*options, "--prediction", str(_write_prediction(Path(folder), prediction)))
    words = command_words(recipe, *options, folder=folder, config=config, text=text)
    news = News(Path(folder) / LOG_NAME, report)
    process = WatchedProcess(words)
    try:
        process.follow(time.monotonic() + timeout_s, news.tell)
    finally:
        process.stop()
    if process.is_late:
        raise TrainingFailed(_late(folder, timeout_s), process.output)
    if process.code:
        raise TrainingFailed(process.reason, process.output)
    return read_log(folder)


def _write_prediction(folder: Path, prediction: dict[str, Any]) -> Path:
    try:
        return write_whole(folder / "prediction.json", prediction)
    except TrainerError as error:
        raise TrainingFailed(str(error)) from None


def command_words(
    recipe: TrainingRecipe, *options: str, folder: str | Path, config: GPTConfig | None = None,
    text: str | Path | None = None,
) -> list[str]:  # fmt: skip
    """The recipe's command for this machine, word by word, run by this very Python.

    torchrun would leave a folder of logs behind, empty ones, in the one for temporary files.
    """
    more = [*options, "--folder", str(folder)]
    more += ["--text", str(text)] if text is not None else []
    more += config_flags(config) if config is not None else []
    words = shlex.split(recipe.command(*map(shlex.quote, more)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--log-dir", os.devnull]
    return [*{"python": [sys.executable], "torchrun": torchrun}[words[0]], *words[1:]]


class News:
    """Hands on the events of a log that this start adds."""

    def __init__(self, log: Path, report: Report | None) -> None:
        self._log, self._report, self._num_told = log, report, 0
        self._old_starts = sum(each["event"] == "start" for each in self._events())

    def tell(self) -> None:
        """What has been written since the last call; a resumed run first rewrites the log."""
        if self._report is None:
            return
        events = self._events()
        starts = [place for place, each in enumerate(events) if each["event"] == "start"]
        if len(starts) > self._old_starts:
            mine = events[starts[self._old_starts] :]
            for event in mine[self._num_told :]:
                self._report(event)
            self._num_told = len(mine)

    def _events(self) -> list[Event]:
        try:
            return read_events(self._log)
        except OSError:
            return []


def _late(folder: str | Path, timeout_s: float) -> str:
    try:
        done = len(read_log(folder).steps)
    except (OSError, ValueError):
        done = 0
    return (
        f"The training did not end within {timeout_s:g} s and has been stopped after {done} steps: "
        "give it more time (timeout_s) or fewer --steps; --resume goes on from its last checkpoint."
    )
