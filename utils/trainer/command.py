"""The process of `python -m utils.train`: it ends with whoever started it, and without waiting.

How it works: the exit comes without the usual good-byes of a group of ranks, which can wait for
peers that are gone.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn


def run_and_exit() -> NoReturn:
    """`main` on this process's command line, then the exit with its code."""
    from utils.trainer.group import watch_parent

    watch_parent()
    code = 1
    try:
        from utils.trainer.main import main

        code = main()
    except SystemExit as error:  # --help
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
