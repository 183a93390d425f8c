"""Prove that a stopped notebook can be run again: every cell is stopped, then all are compared.

    python -m utils.prove_stopped                      all notebooks, another moment each time
    python -m utils.prove_stopped --seed 5 --only 06_data_parallel lab_06_data_parallel
    python -m utils.prove_stopped -- --times 3 --log F     what follows goes to `utils.prove`

How it works: in a copy of the course each notebook begins with all its cells once more, and a timer
strikes each of these with KeyboardInterrupt, as the stop button does, at a random moment up to ten
seconds after its start (most have ended by then: those have simply run before). What they show is
ignored. Then `utils.prove` compares the notebook's own cells strictly, in the same kernel.

Left out: a stop while torch or matplotlib is imported. Neither can be imported again afterwards, so
these imports come first, unstopped; the README says what a learner does.
"""

from __future__ import annotations

import argparse
import copy
import random
import secrets
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from utils import prove
from utils.proving.plan import UsageError, find_notebooks
from utils.proving.pythons import copy_course

NOT_COMPARED = {"tags": ["nbval-ignore-output", "raises-exception"]}
IMPORTS = "import ipywidgets, matplotlib.pyplot, torch._dynamo, torch.distributed"
# The timer's signal is not the one that the course's own code watches for.
STOPPED = """
import signal as _signal

def _strike(*_):
    raise KeyboardInterrupt

_signal.signal(_signal.SIGALRM, _strike)
try:
    _signal.setitimer(_signal.ITIMER_REAL, {delay_s})
    get_ipython().run_cell({source!r})
except KeyboardInterrupt:
    pass
finally:
    _signal.setitimer(_signal.ITIMER_REAL, 0)
"""
SHORTEST_S, LONGEST_S = 0.01, 10.0


def with_stopped_cells(notebook: NotebookNode, chance: random.Random) -> NotebookNode:
    """A copy that first runs each code cell but the first with a stop, then all as they are."""
    made = copy.deepcopy(notebook)
    own = [cell for cell in made.cells if cell.cell_type == "code"]
    first = new_code_cell(f"{own[0].source}\n{IMPORTS}", metadata=NOT_COMPARED)
    stopped = [
        new_code_cell(
            STOPPED.format(delay_s=_delay_s(chance), source=cell.source), metadata=NOT_COMPARED
        )
        for cell in own[1:]
    ]
    made.cells = [first, *stopped, *own]
    return made


def _delay_s(chance: random.Random) -> float:
    """As often between 10 and 100 ms as between 1 and 10 s: cells last that differently."""
    return round(SHORTEST_S * (LONGEST_S / SHORTEST_S) ** chance.random(), 3)


def make_stopped_course(folder: Path, target: Path, seed: int) -> Path:
    """A copy of the course in `target` whose notebooks stop their cells first."""
    course = copy_course(target, folder)
    for name in find_notebooks(course):
        notebook = nbformat.read(course / name, as_version=4)
        nbformat.write(with_stopped_cells(notebook, random.Random(f"{seed} {name}")), course / name)
    return course


def main(arguments: Sequence[str] | None = None) -> int:
    """The status of `utils.prove`; 2 for what cannot be asked."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m utils.prove_stopped", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--seed", type=int, help="the moments (default: drawn, and printed)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--folder", type=Path, default=prove.ROOT, help="another copy")
    options = parser.parse_args(words[:split])
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    try:
        if not hasattr(signal, "setitimer"):
            raise UsageError("This system has no timer that strikes a cell; use Linux or macOS.")
        find_notebooks(options.folder.resolve(), options.only)
        with tempfile.TemporaryDirectory(prefix="course-stopped-") as temporary:
            course = make_stopped_course(options.folder.resolve(), Path(temporary) / "course", seed)
            print(f"Stopped at the moments of --seed {seed}.", flush=True)
            only = ["--only", *options.only] if options.only else []
            return prove.main(["--folder", str(course), *only, *words[split + 1 :]])
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
