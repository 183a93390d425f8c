"""Prove that the course runs on other Pythons, and with another torch.

    python -m utils.prove_pythons 3.10 3.12 3.13              all tests and notebooks on each
    python -m utils.prove_pythons 3.12 --torch 2.11.0         with the torch that a machine has
    python -m utils.prove_pythons 3.13 --folder F -- -k ring tests      other words for pytest

How it works: utils/proving/pythons.py makes an environment and a copy of the course for each, one
after the other; there `utils.check_env` runs, then pytest. At the end stands a table with a row
for each Python. Environments are removed, unless --folder says where they stay for the next time.

Left out: several at the same time; torch with CUDA takes up to 6 GB for each.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from utils.proving.pythons import CannotTry, Row, try_python
from utils.recorded import text_table

HEADERS = ("Python", "torch", "installed", "check-env", "passed", "failed", "seconds")
ALL_TESTS = ("--nbval",)


def prove(
    versions: Sequence[str], torch: str, folder: Path, words: Sequence[str], keeps: bool
) -> list[Row]:
    """One Python after the other; says what failed as soon as it is known."""
    rows = []
    for version in versions:
        row, begun_s = Row(version), time.monotonic()
        print(f"Python {version}: logs in {folder / version}", flush=True)
        try:
            try_python(row, torch, folder / version, words)
        except (CannotTry, OSError) as problem:
            row.problem = str(problem)
        row.seconds = time.monotonic() - begun_s
        for name in filter(None, (*row.results.failing, row.problem)):
            print(f"  failed: {name}", flush=True)
        if not keeps:  # the logs of what failed stay
            shutil.rmtree(folder / version / ("" if row.is_good else "venv"), ignore_errors=True)
        rows.append(row)
    return rows


def _prove_and_say(options: argparse.Namespace, words: Sequence[str]) -> int:
    keeps = options.folder is not None
    folder = options.folder or Path(tempfile.mkdtemp(prefix="course-pythons-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        rows = prove(options.versions, options.torch or "", folder.resolve(), words, keeps)
    except KeyboardInterrupt:
        if not keeps:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    print(*text_table(HEADERS, [row.cells() for row in rows]), sep="\n")
    if not (keeps or any(folder.iterdir())):
        folder.rmdir()
    return 0 if all(row.is_good for row in rows) else 1


def _version(text: str) -> str:
    if not re.fullmatch(r"3\.\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version of Python; write 3.12 or so")
    return text


def _torch(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)+(\+\w+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version of torch; write 2.11.0 or so")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m utils.prove_pythons", description=__doc__.split("\n")[0],
        epilog="Words after -- go to pytest, instead of --nbval.",
    )  # fmt: skip
    add = parser.add_argument
    add("versions", nargs="+", type=_version, metavar="3.X", help="Pythons to try")
    add("--torch", type=_torch, metavar="VERSION", help="instead of the pinned one")
    add("--folder", type=Path, metavar="F", help="where environments stay (default: removed)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all passed, 1 if one failed or could not be tried, 2 for usage, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    options, words = _parser().parse_args(given[:split]), given[split + 1 :] or ALL_TESTS
    try:
        return _prove_and_say(options, words)
    except KeyboardInterrupt:
        print("\nStopped; nothing is left running.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"The folder cannot be written ({error}); name another with --folder.",
              file=sys.stderr)  # fmt: skip
    return 2


if __name__ == "__main__":
    sys.exit(main())
