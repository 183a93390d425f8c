"""A process that keeps one core busy: `python -m utils.proving.load CORE`, -1 for any core.

It says "busy" when it has begun, and ends when its standard input is closed: whoever started it
has then gone, even by kill -9.

Left out: load on memory or on disks.
"""

from __future__ import annotations

import os
import sys
import threading


def main(words: list[str]) -> None:
    """Be busy on the core that the first word names, on any if it is below zero."""
    core = int(words[0])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    threading.Thread(target=_end_with_input, daemon=True).start()
    print("busy", flush=True)
    while True:
        pass


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
