"""`make record`: run the timed experiments on this machine and keep them for the lessons.

    python -m utils.record                 everything, within eight minutes
    python -m utils.record --list          the experiments, and how long each usually takes
    python -m utils.record --only compile  one of them (or several), again
    python -m utils.record --device cpu    the processor, on a machine with a GPU

How it works: every experiment of utils/experiments/registry.py runs at full size on the GPU, or on
the CPU when there is none, in a process of its own with a share of the time that is left. After
each one the device's file in utils/data/recorded/ (utils/recorded.py) is written anew, whole, so
that an interrupt loses nothing that was finished. What fails is named, and keeps its older rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryFile

import torch

from utils.experiments.registry import EXPERIMENTS, Experiment
from utils.record_apart import Outcome, run_apart
from utils.record_where import code_version, device_name, driver_version
from utils.recorded import FOLDER, RecordedRun, path_of, read_recorded, write_recorded

BUDGET_S = 8 * 60.0
Run = Callable[[str, str, float], Outcome]


def record(
    device: str = "",
    folder: Path = FOLDER,
    only: Sequence[str] = (),
    budget_s: float = BUDGET_S,
    run: Run = run_apart,
) -> tuple[RecordedRun, list[str]]:
    """Run experiments on `device` (default: the GPU if there is one) and keep their rows.

    `only` names some of them; `run(name, device, limit_s)` runs one. Returns what the device's file
    now holds, and the names of those that failed. Raises ValueError, before anything runs, for an
    unknown name or device, and OSError when the folder cannot be written.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    left = [EXPERIMENTS[name] for name in checked_names(only)]
    _check_device(device)
    _check_folder(folder)
    kept = start_from(blank_run(device), folder)
    end_s, failed = time.monotonic() + budget_s, []
    while left:
        limit_s = share_s(left, device, end_s - time.monotonic())
        experiment = left.pop(0)
        print(f"{experiment.name} on {device}: ", end="", flush=True)
        outcome = run(experiment.name, device, limit_s)
        print(_words(outcome), flush=True)
        kept = with_outcome(kept, experiment.name, outcome, blank_run(device))
        failed += [experiment.name] * outcome.is_failure
        write_recorded(kept, folder)
    return kept, failed


def share_s(left: Sequence[Experiment], device: str, seconds: float) -> float:
    """The first experiment's limit: its part of the seconds by what each usually takes, and half of
    what is to spare, so that a slow one is not ended early and a hung one leaves time for the rest.
    """
    usual_s = [experiment.usual_s(device) for experiment in left]
    part_s = seconds * usual_s[0] / sum(usual_s)
    spare_s = max(0.0, seconds - sum(usual_s))
    return max(0.0, min(seconds, part_s + spare_s / 2))


def checked_names(only: Sequence[str]) -> list[str]:
    """The experiments of these names in the order of the registry; all of them for none."""
    unknown = [name for name in only if name not in EXPERIMENTS]
    if unknown:
        known = ", ".join(EXPERIMENTS)
        raise ValueError(f"There is no experiment {unknown[0]!r}; take one of {known}.")
    return [name for name in EXPERIMENTS if not only or name in only]


def blank_run(device: str) -> RecordedRun:
    """A run of this machine, today, with nothing in it."""
    return RecordedRun(
        device=device_name(device),
        kind=device,
        driver=driver_version(device),
        torch=torch.__version__,
        date=date.today().isoformat(),
        code_version=code_version(),
        experiments={},
    )


def start_from(blank: RecordedRun, folder: Path) -> RecordedRun:
    """`blank` with the rows of the device's file, each under its own date; a bad file is kept."""
    path = path_of(blank.device, folder)
    if not path.exists():
        return blank
    old, problem = read_recorded(path)
    if old is None:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        print(f"{path.name} is set aside as {aside.name}: {problem}.")
        return blank
    made = {name: _made(old.of(name)) | old.made.get(name, {}) for name in old.experiments}
    return replace(blank, experiments=dict(old.experiments), made=made, skipped=old.skipped)


def with_outcome(kept: RecordedRun, name: str, outcome: Outcome, blank: RecordedRun) -> RecordedRun:
    """The run with this outcome: new rows replace old ones, a problem is noted beside them."""
    if outcome.rows is None:
        return replace(kept, skipped={**kept.skipped, name: outcome.problem})
    made = {**_made(blank), "seconds": round(outcome.seconds, 1)}
    return replace(
        kept,
        experiments={**kept.experiments, name: outcome.rows},
        made={**kept.made, name: made},
        skipped={each: why for each, why in kept.skipped.items() if each != name},
    )


def listing(device: str) -> str:
    """A line for each experiment."""
    lines = [
        f"{each.name:<17} lesson {each.lessons:<11} about {each.usual_s(device):>3.0f} s  "
        f"{each.about}"
        for each in EXPERIMENTS.values()
    ]
    return "\n".join(lines)


def _made(run: RecordedRun) -> dict[str, str]:
    names = ("driver", "torch", "date", "code_version")
    return {name: getattr(run, name) for name in names}


def _words(outcome: Outcome) -> str:
    if outcome.rows is None:
        return f"skipped, {outcome.problem} ({outcome.seconds:.0f} s)"
    return f"{len(outcome.rows)} rows in {outcome.seconds:.0f} s"


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise ValueError(f"The device is {device!r}; take cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("There is no CUDA device here: leave --device out to record the CPU.")


def _check_folder(folder: Path) -> None:
    """A folder that refuses to be written does so now, not after minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, or list; 1 when something failed, 2 for what cannot be asked, 130 after Ctrl-C."""
    about = "Run the timed experiments on this machine and keep them for the lessons."
    parser = argparse.ArgumentParser(prog="python -m utils.record", description=about)
    parser.add_argument("--list", action="store_true", help="name the experiments and stop")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one of them")
    parser.add_argument("--device", default="", help="cpu or cuda")
    parser.add_argument("--minutes", type=float, default=BUDGET_S / 60, help="for all together")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the file goes")
    options = parser.parse_args(arguments)
    if options.list:
        print(listing("cuda" if torch.cuda.is_available() else "cpu"))
        return 0
    return _record_and_say(options)


def _record_and_say(options: argparse.Namespace) -> int:
    start_s = time.monotonic()
    try:
        kept, failed = record(options.device, options.folder, options.only, 60 * options.minutes)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The file cannot be written ({error.strerror}): check the folder's permissions and "
              "the free disk space, or take another with --folder.", file=sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt:
        print("\nStopped; what was finished is kept.", file=sys.stderr)
        return 130
    print(f"wrote {path_of(kept.device).name} in {time.monotonic() - start_s:.0f} s")
    if failed:
        again = " ".join(f"--only {name}" for name in failed)
        print(f"No new rows of {', '.join(failed)}. Again: python -m utils.record {again}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
