"""What protects files: edited notebooks are recognised, and all files are replaced or none.

How it works: a built notebook carries a fingerprint of its cells' types and texts. It does not
change when JupyterLab saves the file (outputs, metadata, ids, empty cells and line ends do not
count); a file whose cells do not match its fingerprint holds somebody's work. New files are
made elsewhere, then moved over the old ones; when one move fails, the earlier ones are undone.

Left out: merging a learner's text with a new version of a lab.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.build.plan import FOLDERS, BuildError, Draft

FORCE_ADVICE = (
    "Nothing was written. They may hold a learner's work: `make my-labs` copies labs into my-labs/ "
    "(labs that are already there are kept as they are), and for other notebooks copy the file "
    "yourself; then build with --force to replace them."
)


def fingerprint(cells: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of types and texts of all cells that are not empty."""
    return hashlib.sha256(json.dumps([c[:2] for c in _contents(cells)]).encode()).hexdigest()


def _contents(cells: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Type, text and tags of each cell that is not empty, as they survive a save."""
    found = []
    for cell in cells:
        source = cell["source"]
        text = source if isinstance(source, str) else "".join(source)
        tags = sorted(cell.get("metadata", {}).get("tags", []))
        found.append((str(cell["cell_type"]), text.replace("\r\n", "\n").rstrip("\n"), tags))
    return [content for content in found if content[1].strip()]


def is_edited(path: Path) -> bool:
    """Whether a file exists and does not hold exactly the cells that a build has written."""
    if not os.path.lexists(path):
        return False
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return stored["metadata"]["course"]["fingerprint"] != fingerprint(stored["cells"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def refuse_edited(drafts: Sequence[Draft], root: Path) -> None:
    """Raise BuildError that lists the targets which somebody has edited, if there are any."""
    edited = [draft.target for draft in drafts if is_edited(root / draft.target)]
    if edited:
        raise BuildError(f"Changed since they were built: {', '.join(edited)}. {FORCE_ADVICE}")


def difference(draft: Draft, root: Path) -> str | None:
    """How a stored notebook differs from what its source gives, in a sentence; None if equal."""
    path = root / draft.target
    if not path.is_file():
        return f"{draft.target} is missing."
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        have, want = _contents(stored["cells"]), _contents(draft.notebook.cells)
        ids = [cell.get("id") for cell in stored["cells"] if "".join(cell["source"]).strip()]
        course = stored["metadata"].get("course")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{draft.target} is not a readable notebook."
    for number, (old, new) in enumerate(zip(have, want, strict=False), start=1):
        if old != new:
            return f"{draft.target} differs from {draft.source}, first in cell {number}."
    if len(have) != len(want):
        return f"{draft.target} has {len(have)} cells, but {draft.source} gives {len(want)}."
    if (
        ids != [cell.id for cell in draft.notebook.cells]
        or course != draft.notebook.metadata.course
    ):
        return (
            f"{draft.target} has other cell ids or another fingerprint than {draft.source} gives."
        )
    return None


def strays(drafts: Sequence[Draft], root: Path) -> list[str]:
    """Sentences on notebooks in the built folders that no source gives."""
    known = {draft.target for draft in drafts}
    found = [
        f"{folder}/{path.name}" for folder in FOLDERS for path in (root / folder).glob("*.ipynb")
    ]
    return [f"{name} has no source; remove it." for name in sorted(set(found) - known)]


def replace_all(moves: Mapping[Path, Path], scratch: Path) -> None:
    """Move each new file (key) over its target (value): all of them, or none when one fails.

    `scratch` is a folder on the same disk in which the old files wait until all is done.
    """
    done: list[tuple[Path, Path]] = []
    try:
        for number, (new, target) in enumerate(moves.items()):
            target.parent.mkdir(parents=True, exist_ok=True)
            backup = scratch / f"{number}.old"
            if target.exists():
                shutil.copy2(target, backup)
            done.append((backup, target))
            os.replace(new, target)
    except BaseException:
        for backup, target in reversed(done):
            if backup.exists():
                os.replace(backup, target)
            elif target.is_file():
                target.unlink()
        raise
