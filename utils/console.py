"""Printing on terminals that lack letters: a name they cannot show is no reason to stop.

Left out: notebooks, whose output is UTF-8, and error streams, which Python sets up like this.
"""

from __future__ import annotations

import sys


def print_what_it_can() -> None:
    """From now on `print` writes a letter that the terminal lacks by its number, as `\\u65e5`."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's or a test's stream may lack it
        sys.stdout.reconfigure(errors="backslashreplace")
