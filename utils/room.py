"""What does a room of learners need? `python -m utils.room` measures one and sizes a machine.

How it works: a learner's JupyterLab server is started once, then a real kernel runs a whole
notebook, alone and then beside a second learner, while memory and CPU time of all processes are
read (utils/room_learner.py). The second one shows that only pages of a learner's own are added.
Then the arithmetic for `--learners`: utils/room_sizing.py. Of several notebooks the largest counts.

Left out: systems other than Linux, browsers, and JupyterHub's own processes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.room_learner import Watched, watch, watch_jupyterlab
from utils.room_meter import MIB, Reading
from utils.room_process import RoomError
from utils.room_sizing import GIB, Cost, Room, memory_gib, num_cores, slow_down

ROOT = Path(__file__).resolve().parents[1]
HEAVIEST = ROOT / "notebooks/10_all_together.ipynb"  # of 00, 06 and 10, which were measured


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if not sys.platform.startswith("linux"):
        print("Measuring a room needs Linux (/proc): use WSL, a container or the hub itself.",
              file=sys.stderr)  # fmt: skip
        return 1
    if missing := [str(path) for path in options.notebooks if not path.is_file()]:
        print(f"There is no notebook {', '.join(missing)}.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended like Ctrl-C: nothing stays
    try:
        _measure_and_size(options)
    except RoomError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything that was started is ended.", file=sys.stderr)
        return 130
    return 0


def _measure_and_size(options: argparse.Namespace) -> None:
    notebooks = [path.resolve() for path in options.notebooks]
    server = watch_jupyterlab(notebooks[0])
    print(f"JupyterLab's server: {_mib(server.total_own_bytes)} of its own", flush=True)
    seen = {}
    for notebook in notebooks:
        (learner,), pss_bytes = watch(notebook)
        seen[notebook] = learner, pss_bytes
        print("\n" + "\n".join(lines_of(notebook.stem, learner)), flush=True)
    heaviest = max(seen, key=lambda path: seen[path][0].peak.total_own_bytes)
    learner, pss_bytes = seen[heaviest]
    if not options.alone:
        _, both_bytes = watch(heaviest, 2)
        added = f"{_mib(both_bytes - pss_bytes)}, with shared pages counted once"
        print(f"\n{heaviest.stem}: a second learner beside the first adds {added}", flush=True)
    room = Room(options.learners, options.share, options.open)
    cost = cost_of(server, learner)
    print("\n" + "\n".join(sizing_lines(room, cost)))


def cost_of(server: Reading, learner: Watched) -> Cost:
    """What the sizing needs of a server and of one learner's run."""
    files = server.file_bytes + learner.peak.file_bytes  # at most: some are in both
    return Cost(server.total_own_bytes, learner.peak.total_own_bytes, learner.resting_bytes, files,
                learner.busy_cores[1])  # fmt: skip


def lines_of(name: str, learner: Watched) -> list[str]:
    """One notebook's run, and its processes at the moment when they held most."""
    peak, (low, high) = learner.peak, learner.busy_cores
    cores = f"{low:.1f}" if high - low < 0.05 else f"{low:.1f} to {high:.1f}"
    return [
        f"{name}: at most {_mib(peak.total_own_bytes)} of its own at once, "
        f"{_mib(learner.resting_bytes)} when it stays open",
        *(f"    {peak.num_processes[kind]} x {kind}: {_mib(num_bytes)}"
          for kind, num_bytes in peak.own_bytes.most_common()),
        f"    libraries, shared with all: {_mib(peak.file_bytes)}",
        f"    {learner.cpu_s:.0f} CPU seconds in {learner.wall_s:.0f} s: {cores} cores busy",
    ]  # fmt: skip


def sizing_lines(room: Room, cost: Cost) -> list[str]:
    """The room's needs, and a machine."""
    most, usual, busy = room.most_bytes(cost), room.usual_bytes(cost), room.busy_cores(cost)
    cores, memory = num_cores(busy), memory_gib(most)
    slower = slow_down(room, cost, cores)
    open_ = "1 open notebook" if room.num_open == 1 else f"{room.num_open} open notebooks"
    return [
        f"{room.num_learners} learners with {open_} each:",
        f"    memory: {most / GIB:.1f} GiB if all run at once, "
        f"{usual / GIB:.1f} GiB if {room.share:.0%} do",
        f"    cores: {busy:.1f} busy if {room.share:.0%} run at once",
        f"    a machine: {memory} GiB, {cores} cores; if all run a cell at once, it takes "
        f"{slower:.1f} times as long",
        f"    each learner: {cost.bytes_at_peak(room.num_open) / GIB:.1f} GiB of memory at the "
        f"peak, and {cost.file_bytes / GIB:.1f} GiB of libraries where they are not shared",
    ]


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / MIB:,.0f} MiB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m utils.room", description="Measure one learner, and size a room's machine."
    )
    add = parser.add_argument
    # fmt: off
    add("notebooks", type=Path, nargs="*", default=[HEAVIEST], metavar="NOTEBOOK",
        help=f"default: {HEAVIEST.relative_to(ROOT).as_posix()}, the largest one seen")
    add("--learners", type=_count, default=30, metavar="N", help="default: 30")
    add("--share", type=_share, default=0.3, metavar="X",
        help="share of learners whose notebook computes at a moment (default: 0.3)")
    add("--open", type=_count, default=2, metavar="N",
        help="notebooks that a learner leaves open, a lesson and a lab (default: 2)")
    add("--alone", action="store_true", help="without the run of two learners at once")
    # fmt: on
    return parser


def _count(text: str) -> int:
    if not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 10,000")
    return int(text)


def _share(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share above 0 and at most 1")
    return float(text)


if __name__ == "__main__":
    sys.exit(main())
