"""Whether a folder's run is the one that the options describe: `run.json`, compared and explained.

How it works: `RunSettings.identity` is what shapes the losses; the first difference from run.json
is named, with the option that makes it the folder's run.

Left out: differences after the first; they show one by one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.trainer.settings import TrainerError

IDENTITY = "run.json"


def check_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Raises TrainerError when the folder's run is another one, or nobody knows."""
    try:
        theirs = json.loads((folder / IDENTITY).read_text())
        theirs = theirs if isinstance(theirs, dict) else {}
    except (OSError, ValueError):
        raise TrainerError(
            f"{folder / IDENTITY} is missing or damaged, so nobody knows which run this is: choose "
            "another --folder."
        ) from None
    for name, mine in identity.items():
        if theirs.get(name) != mine:
            raise TrainerError(
                f"{folder} holds another run, whose {name} is {_shown(theirs.get(name))} and here "
                f"{_shown(mine)}: give {_words(name, theirs.get(name))}, or choose another "
                "--folder."
            )


def see_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Raises TrainerError when this rank does not see what rank 0 has written."""
    try:
        is_same = json.loads((folder / IDENTITY).read_text()) == identity
    except (OSError, ValueError):
        is_same = False
    if not is_same:
        raise TrainerError(
            f"{folder} is not what rank 0 has under that name: all machines need one shared folder."
        )


def _shown(value: Any) -> str:
    return "single or ddp" if value == "whole weights" else str(value)


def _words(name: str, value: Any) -> str:
    """The option that gives the folder's value."""
    if name == "text's checksum":
        return "the same --text"
    flag = name.replace(" ", "-")
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{flag}"
    return f"--{flag} {0 if value is None else _shown(value)}"
