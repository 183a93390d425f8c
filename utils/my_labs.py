"""Give a learner a private copy of the labs: `python -m utils.my_labs [--to my-labs]`.

How it works: each labs/*.ipynb is copied into a folder that git ignores, unless a file of that
name is there already: a learner's work is never overwritten. Run it again when new labs come.

Left out: bringing a changed lab into a copy that was started; delete or rename the copy for that.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from utils.console import print_what_it_can

ROOT = Path(__file__).resolve().parents[1]
_COURSE_FOLDERS = ("sources", "notebooks", "labs", "solutions", "utils", "tests")


class CopyError(Exception):
    """One sentence for the learner: what is wrong and what to do."""


def copy_labs(root: Path = ROOT, to: Path | str = "my-labs") -> list[str]:
    """Copy the labs that are not yet in `to`; returns one line "copied ..." or "kept ..." each.

    `to` is relative to `root` and must lie inside of it, because a lab looks for utils/ in the
    folders above its own. Raises CopyError, and leaves no half-written file.
    """
    labs = sorted((root / "labs").glob("*.ipynb"))
    if not labs:
        raise CopyError(f"There are no labs in {root / 'labs'}; run `make build` first.")
    folder = _private_folder(root, to)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_copy(lab, folder, root) for lab in labs]
    except OSError as error:
        raise CopyError(
            f"The labs cannot be copied into {folder} ({error.strerror or error}); "
            f"{_cure(error, root)}."
        ) from None


def _cure(error: OSError, root: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some disk space, then run this again"
    if not os.access(root, os.W_OK):
        return "copy the whole course to a folder that you can write to, and run this there"
    return "name a folder that you can write to with --to"


def _private_folder(root: Path, to: Path | str) -> Path:
    folder = (root / to).resolve()
    parents = [folder, *folder.parents]
    if root.resolve() not in parents[1:]:
        raise CopyError(
            f"{folder} is not a folder inside of {root}, so a lab there could not find "
            "utils/; name one inside."
        )
    if any(root.resolve() / name in parents for name in _COURSE_FOLDERS):
        raise CopyError(f"{folder} belongs to the course; name a folder of your own with --to.")
    return folder


def _copy(lab: Path, folder: Path, root: Path) -> str:
    target = folder / lab.name
    shown = target.relative_to(root.resolve()).as_posix()
    content = lab.read_bytes()
    if os.path.lexists(target):
        same = target.is_file() and target.read_bytes() == content
        return f"kept {shown} ({'unchanged' if same else 'it differs from labs/' + lab.name})"
    # Written beside, then moved: an interrupted copy must not look like a lab next time.
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=folder) as scratch:
        part = Path(scratch) / lab.name
        part.write_bytes(content)
        os.replace(part, target)
    return f"copied {shown}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.my_labs", description="Copy the labs into a folder of your own."
    )
    parser.add_argument("--to", default="my-labs", metavar="DIR", help="default: my-labs")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    print_what_it_can()
    try:
        print("\n".join(copy_labs(options.root, options.to)))
    except CopyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
