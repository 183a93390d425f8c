"""Prove that the notebooks are repeatable: strict `pytest --nbval`, many times, made hard.

    python -m utils.prove --times 20                      twenty times in a row
    python -m utils.prove --times 5 --cores 1 --load 1    one visible core, and that one is busy
    python -m utils.prove --times 5 --shuffle             notebooks in another order each time
    python -m utils.prove --only 06_data_parallel         one notebook (or several)
    python -m utils.prove --summary FOLDER                adds up what is recorded there

How it works: each repetition is a fresh pytest under a keeper (utils/proving/), which ends it and
the load whatever happens. One line is printed and one record is kept for each; what failed is named
and its whole output kept. A repetition passes only if every code cell was compared.

Left out: the unit tests, and running repetitions at the same time, which would change what each
one is to prove.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from utils.measured import measured
from utils.proving.plan import (
    MAX_LOAD,
    Conditions,
    Plan,
    UsageError,
    find_notebooks,
    orders,
    visible_cores,
)
from utils.proving.records import Record, add_record
from utils.proving.repetition import ROOT, repeat_once
from utils.proving.summary import print_summary, records_of


def prove(plan: Plan, log: Path) -> list[Record]:
    """Repeat, print a line and keep a record for each repetition; returns the records."""
    begun_s, version = time.monotonic(), _code_version(plan.folder)
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    done: list[Record] = []
    for number, order in zip(range(1, plan.times + 1), orders(plan), strict=False):
        slowest_s = max((record.seconds for record in done), default=0.0)
        if done and time.monotonic() - begun_s + slowest_s > plan.within_s:
            print("The next repetition would not end in time and is not begun.")
            break
        record = repeat_once(plan, order, number, log, run, version)
        add_record(record, log)
        done.append(record)
        print(_line(record, plan, log), flush=True)
        if record.failing and plan.stops:
            break
    return done


def _line(record: Record, plan: Plan, log: Path) -> str:
    seed = "" if record.seed is None else f" of seed {record.seed}"
    lines = [
        f"repetition {record.number} of {plan.times} ({record.conditions()}{seed}): "
        f"{record.passed} passed, {record.failed} failed, {measured(record.seconds, 's')}"
    ]
    lines += [f"  failed: {name}" for name in record.failing]
    return "\n".join(lines + [f"  the whole output: {log / record.log}"] * bool(record.failing))


def _code_version(folder: Path) -> str:
    if folder != ROOT:
        return "another folder's"
    from utils.record_where import code_version  # here: it imports torch

    return code_version()


def _log_folder(asked: Path | None) -> Path:
    """Made if missing; one that cannot be written says so now, not after minutes."""
    try:
        folder = asked or Path(tempfile.mkdtemp(prefix="course-prove-"))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError as error:
        raise UsageError(f"The log folder {asked or tempfile.gettempdir()} cannot be written "
                         f"({error.strerror}); name another with --log.") from None  # fmt: skip


def _plan(options: argparse.Namespace) -> Plan:
    if options.times < 1:
        raise UsageError(f"--times is {options.times}; ask for at least one repetition.")
    if not 0 <= options.load <= MAX_LOAD:
        raise UsageError(f"--load is {options.load}; take 0 to {MAX_LOAD} busy processes.")
    if not options.within > 0:
        raise UsageError(f"--within is {options.within:g}; give minutes above 0.")
    folder = options.folder.resolve()
    notebooks = find_notebooks(folder, options.only)
    is_whole = notebooks == find_notebooks(folder)
    conditions = Conditions(visible_cores(options.cores), options.load, _seed(options.shuffle))
    return Plan(folder, notebooks, is_whole, conditions, options.times, 60 * options.within,
                options.stop)  # fmt: skip


def _seed(asked: int | str | None) -> int | None:
    return secrets.randbelow(10**6) if isinstance(asked, str) else asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m utils.prove", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--times", type=int, default=1, metavar="N", help="how often (default: once)")
    add("--cores", type=int, metavar="N", help="how many cores are visible (default: all; Linux)")
    add("--load", type=int, default=0, metavar="N", help="busy processes beside it, a core each")
    add("--shuffle", type=int, nargs="?", const="any", metavar="SEED",
        help="the notebooks in random order, another one each time")  # fmt: skip
    add("--only", nargs="+", action="extend", default=[], metavar="NAME",
        help="only these, for example 06_data_parallel lab_06_data_parallel")  # fmt: skip
    add("--within", type=float, default=math.inf, metavar="MINUTES",
        help="begin no repetition that would not end in time, judged by the slowest")  # fmt: skip
    add("--stop", action="store_true", help="stop after the first repetition that fails")
    add("--log", type=Path, metavar="FOLDER", help="for records and outputs of failures")
    add("--folder", type=Path, default=ROOT, help="another copy of the course")
    add("--summary", type=Path, nargs="+", metavar="FOLDER", help="add up what is recorded there")
    return parser


def _alone(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    others = {name for name in vars(options) if getattr(options, name) != parser.get_default(name)}
    if others != {"summary"}:
        raise UsageError("--summary runs nothing: leave the other options out.")


def _prove_and_say(plan: Plan, log: Path) -> int:
    print(f"{plan.times} x {len(plan.notebooks)} notebooks; records and failures go to {log}",
          flush=True)  # fmt: skip
    done = prove(plan, log)
    failures = sum(not record.has_passed for record in done)
    num_cells = sum(record.passed + record.failed for record in done)
    verdict = f"{failures} failed" if failures else "all passed"
    print(f"{len(done)} of {plan.times} repetitions done, {verdict}; {num_cells:,} cells compared.")
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all passed, 1 if any failed, 2 for what cannot be asked, 130 after Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.summary is None:
            return _prove_and_say(_plan(options), _log_folder(options.log))
        _alone(options, parser)
        records = records_of(options.summary)
        print_summary(records)
        return 0 if all(record.has_passed for record in records) else 1
    except KeyboardInterrupt:
        print("\nStopped; finished repetitions are recorded.", file=sys.stderr)
        return 130
    except UsageError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"Cannot go on ({error}); finished repetitions are recorded.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
