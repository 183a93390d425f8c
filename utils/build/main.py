"""Build notebooks/, labs/ and solutions/ from sources/: `python -m utils.build`.

How it works: each source becomes one notebook (a lesson) or two (a lab with stubs and its
solution), each is run from top to bottom in a temporary folder beside the real ones, and only when
all of them have run are they moved into place. A notebook that was edited after it was built stops
the build before anything is run. `--check` runs nothing and says whether the stored notebooks are
what the sources give.

Left out: remembering which sources changed; name them with `--only`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat

from utils.build.guard import difference, refuse_edited, replace_all, strays
from utils.build.plan import FOLDERS, BuildError, Draft, find_sources
from utils.build.run import CELL_TIMEOUT_S, run_draft
from utils.build.text import drafts_of

ROOT = Path(__file__).resolve().parents[2]


def plan(root: Path, only: Sequence[str] = ()) -> list[Draft]:
    """The notebooks that the sources give, not yet run. Raises BuildError for a bad source."""
    return [draft for source in find_sources(root, only) for draft in drafts_of(source, root)]


def build(
    root: Path = ROOT,
    only: Sequence[str] = (),
    force: bool = False,
    timeout_s: float = CELL_TIMEOUT_S,
) -> list[str]:
    """Run and write all notebooks of the sources named in `only` (default: of all sources).

    Returns the names of the written files. `force` replaces edited files too. Raises BuildError,
    and then no file has changed.
    """
    drafts = plan(root, only)
    if not drafts:
        raise BuildError(f"There is nothing to build: {root / 'sources'} has no .py file.")
    if not force:
        refuse_edited(drafts, root)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=root) as scratch_name:
        scratch = Path(scratch_name)
        for folder in FOLDERS:
            (scratch / folder).mkdir()
        moves = {_run_and_stage(d, root, scratch, timeout_s): root / d.target for d in drafts}
        if not force:
            refuse_edited(drafts, root)  # again: running took minutes
        replace_all(moves, scratch)
    return [draft.target for draft in drafts]


def _run_and_stage(draft: Draft, root: Path, scratch: Path, timeout_s: float) -> Path:
    """Run a draft in the scratch folder's copy of its folder and write it there."""
    staged = scratch / draft.target
    before = set(staged.parent.iterdir())
    start_s = time.monotonic()
    notebook = run_draft(draft, staged.parent, root, timeout_s)
    left_behind = sorted(path.name for path in set(staged.parent.iterdir()) - before)
    if left_behind:
        raise BuildError(
            f"{draft.source} leaves files in its folder ({', '.join(left_behind)}); write them to "
            "a temporary folder. Nothing was written."
        )
    nbformat.validate(notebook)
    # Bytes, so that Windows writes the same file.
    staged.write_bytes((nbformat.writes(notebook).rstrip("\n") + "\n").encode("utf-8"))
    print(f"ran {draft.target} in {time.monotonic() - start_s:.1f} s", flush=True)
    return staged


def check(root: Path = ROOT, only: Sequence[str] = ()) -> list[str]:
    """One sentence for each stored notebook that is not what its source gives; runs nothing."""
    drafts = plan(root, only)
    found = [text for draft in drafts if (text := difference(draft, root))]
    return found if only else found + strays(drafts, root)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code, 1 for anything that is wrong."""
    options = _parser().parse_args(arguments)
    root = options.root.resolve()
    try:
        if options.check:
            problems = check(root, options.only)
            print("\n".join([*problems, "Run `make build`."] if problems else ["All is built."]))
            return 1 if problems else 0
        written = build(root, options.only, options.force)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The build could not write: {error}. No notebook was changed.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. No notebook was changed.", file=sys.stderr)
        return 130
    print(f"wrote {', '.join(written)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m utils.build", description="Build notebooks, labs, solutions from sources."
    )
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="STEM",
        help="build only these sources, for example 01_the_bill lab_01_the_bill",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace notebooks that were edited after a build"
    )
    parser.add_argument(
        "--check", action="store_true", help="run nothing; say whether all notebooks are built"
    )
    parser.add_argument(
        "--root", type=Path, default=ROOT, metavar="DIR", help="the course's folder"
    )
    return parser

