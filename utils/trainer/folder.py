"""A run's folder: whose it is, which of its checkpoints can be taken, which are kept.

How it works: `run.json` says what shapes the run's losses. A folder that holds a run is left alone
without `--resume`, and with it when that run is another one; a run that ended before it had saved
anything may be begun anew. Going on takes the newest checkpoint that can be read; a damaged one
gets another name, and is named. The last two are kept.

    RUN/run.json, RUN/log.jsonl, RUN/step-000020/, RUN/step-000040/

Left out: folders that only some machines see; that is refused at the start.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.peers import System
from utils.trainer.group import Ranks, together
from utils.trainer.identity import IDENTITY, check_identity, see_identity
from utils.trainer.log import LOG_NAME, LogWriter, read_events, read_log
from utils.trainer.settings import RunSettings, TrainerError
from utils.trainer.state import ABOUT, SHARDS, load_state, read_about, step_name

DAMAGED, NUM_KEPT = ".damaged", 2
STEP = re.compile(r"step-(\d{6,})")


def checkpoints(folder: Path) -> list[Path]:
    """Folders of finished steps, the newest first."""
    found = {path: match for path in folder.glob("step-*") if (match := STEP.fullmatch(path.name))}
    return sorted(found, key=lambda path: int(found[path][1]), reverse=True)


def way_on(folder: Path | None) -> str:
    """How a run that has been stopped from outside goes on."""
    if folder is not None and checkpoints(folder):
        return "--resume goes on from the last complete step-*."
    return "nothing had been saved, so the same command starts again."


def is_finished(settings: RunSettings) -> bool:
    """Whether the log has its end and the last step's checkpoint is there."""
    last = settings.folder / step_name(settings.steps)
    try:
        read_about(last)
        return any((last / SHARDS).iterdir()) and read_log(settings.folder).is_finished
    except (OSError, ValueError, TrainerError):  # a damaged log does not stop a run from going on
        return False


def claim(settings: RunSettings, identity: dict[str, Any], ranks: Ranks) -> LogWriter | None:
    """Make the folder this run's own, from all ranks; rank 0 gets the log to write.

    Raises TrainerError on all ranks for a folder that holds another run, this one without
    --resume, or one that is being written, and when not all ranks see the same folder.
    """
    log = together(lambda: _claim(settings, identity) if ranks.is_first else None)
    together(lambda: see_identity(settings.folder, identity))
    return log


def take_newest(
    system: System, folder: Path, ranks: Ranks, library: str
) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest checkpoint that can be read: (its trainer.json or None, sentences to say).

    All ranks call it. Raises TrainerError when there are checkpoints but none that this run can
    take.
    """
    said, places = [], checkpoints(folder)
    for place in places:
        try:
            about = together(lambda place=place: read_about(place))
            _check_ranks(about, ranks, library, place)
            load_state(system, place, about)
        except _Foreign:
            raise
        except TrainerError as error:
            reason = str(error).split(": take ")[0].rstrip(".")
            said.append(reason if place.name in reason else f"{place.name}: {reason}")
            continue
        together(lambda: ranks.is_first and _move_aside(places[: len(said)]))
        pairs = zip(said, places, strict=False)
        return about, [f"{why}: moved aside, to {each.name}{DAMAGED}." for why, each in pairs]
    if places:
        raise TrainerError(
            f"No checkpoint in {folder} can be taken ({said[0]}): start in another --folder."
        )
    return None, ["There is no checkpoint to go on from: starting from the beginning."]


def keep_last(folder: Path) -> None:
    """Remove all but the newest; one that is half removed has no trainer.json any more."""
    for place in checkpoints(folder)[NUM_KEPT:]:
        (place / ABOUT).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)


def write_whole(path: Path, content: dict[str, Any]) -> Path:
    """Write a file of a run as JSON, whole or not at all, and make its folder.

    Raises TrainerError, with the older file as it was, when there is no room or no permission.
    """
    beside = path.with_name(path.name + ".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        beside.replace(path)
    except BaseException as error:  # also Ctrl-C: nothing half-written is left
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            raise _unwritable(path.parent, error) from None
        raise
    return path


class _Foreign(TrainerError):
    """A checkpoint that is good, but not for these ranks."""


def _check_ranks(about: dict[str, Any], ranks: Ranks, library: str, place: Path) -> None:
    if library == "deepspeed" and about["num_ranks"] != ranks.world_size:
        raise _Foreign(
            f"DeepSpeed's {place.name} is cut for {about['num_ranks']} ranks and cannot be taken "
            f"by {ranks.world_size}: start {about['num_ranks']} ranks."
        )


def _claim(settings: RunSettings, identity: dict[str, Any]) -> LogWriter:
    folder = settings.folder
    log = _open_log(folder)
    try:
        if not settings.resume and _has_saved(folder):
            raise TrainerError(
                f"{folder} holds a run already: go on with --resume, or choose another --folder."
            )
        if settings.resume and _holds_run(folder):
            check_identity(folder, identity)
        write_whole(folder / IDENTITY, identity)
    except BaseException:
        log.close()
        raise
    return log


def _open_log(folder: Path) -> LogWriter:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return LogWriter(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> TrainerError:
    return TrainerError(
        f"The folder {folder} cannot be written ({error.strerror}): choose another --folder."
    )


def _holds_run(folder: Path) -> bool:
    return bool(checkpoints(folder)) or (folder / LOG_NAME).stat().st_size > 0


def _has_saved(folder: Path) -> bool:
    """Whether there is more to lose than the log of a run that came to nothing."""
    events = read_events(folder / LOG_NAME)
    is_strange = not events and _holds_run(folder)
    return is_strange or any(each["event"] in ("saved", "end") for each in events) or bool(
        checkpoints(folder)
    )


def _move_aside(places: list[Path]) -> None:
    for place in places:
        aside = place.with_name(place.name + DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
