"""The process of `python -m utils.train`: it ends with whoever started it, and without waiting.

How it works: until torch is imported, which takes seconds, Ctrl-C ends the process on the spot
with one line; `main` has its own for later. The exit comes without the usual good-byes of a group
of ranks, which can wait for peers that are gone.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import NoReturn

ERROR = "utils.train: "  # how the trainer's last sentence begins
EARLY = f"{ERROR}Interrupted before anything was begun: the same command starts again.\n"
INTERRUPTED = 130


def run_and_exit() -> NoReturn:
    """`main` on this process's command line, then the exit with its code."""
    code = 1
    try:
        main = _import_main()
        code = main()
    except SystemExit as error:  # --help
        code = error.code or 0
    except KeyboardInterrupt:  # in the moment before `main` has its own answer
        _leave()
    except BaseException as error:
        _tell(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _import_main() -> object:
    """`main`, with all that it imports, which cannot be trusted with a KeyboardInterrupt."""
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:  # a job in the background ignores Ctrl-C
        signal.signal(signal.SIGINT, _leave)
    from utils.trainer.group import watch_parent
    from utils.trainer.main import main

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    watch_parent()
    return main


def _leave(*_: object) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":
        os.write(2, EARLY.encode())
    os._exit(INTERRUPTED)


def _tell(error: BaseException) -> None:
    """An error that nobody expected, and its sentence, in one piece: other ranks print too."""
    from utils.checks.helpers import one_line  # not in the first moments, which Ctrl-C may meet

    where = traceback.extract_tb(error.__traceback__)[-1]
    what = one_line("".join(traceback.format_exception_only(error)))
    place = f"line {where.lineno} of {os.path.basename(where.filename)}"
    who = f"rank {os.environ['RANK']}" if "RANK" in os.environ else "the trainer"
    sentence = f"{ERROR}{who} crashed: {what} ({place})\n"
    text = "".join(traceback.format_exception(error)) + sentence
    os.write(2, text.encode(errors="replace"))
