"""Run a function on several ranks of this machine: `run_ranks(worker, 4, ...)`.

How it works: the worker travels by value to N processes, the ranks, which form the default process
group of torch.distributed: gloo on processors, NCCL with one GPU each when there are enough. Ranks
are forks of a server that has imported torch once, so a call costs some hundredths of a second.
What they print and return comes back in rank order.

Start methods: "forkserver" on Linux; "spawn" on macOS, whose system libraries do not bear a fork
(seconds a call instead of hundredths). Windows has neither gloo's files nor fork: WSL is the way.
Left out: several machines; ranks that live from one cell to the next.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from utils.checks.helpers import one_line
from utils.ranks import child
from utils.ranks.cores import warn_of_many
from utils.ranks.crew import Crew
from utils.ranks.job import Finished, Job
from utils.ranks.output import show
from utils.ranks.pickling import pack_job, unpack
from utils.ranks.report import RankError, error_of
from utils.ranks.scratch import temporary_folder
from utils.ranks.server import context_for, start_helpers

MAX_RANKS, MAX_SECONDS = 64, 86_400
START_METHODS = ("forkserver", "spawn")


def run_ranks(
    worker: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout_s: float = 60.0,
    backend: str | None = None,
    quiet: bool = False,
    start_method: str | None = None,
) -> list[Any]:
    """Return `[worker(rank, world_size, *args) for each rank]`, each run by a process of its own.

    The ranks are the default process group, with one torch thread each and random numbers that
    start from 0. Tensors in results come back on the CPU. What ranks print is shown, labelled and
    in rank order, when they have ended, unless `quiet`. `backend` forces "gloo" or "nccl".

    Raises RankError when a rank raises, dies, returns what cannot be sent, or when ranks wait for
    each other or for longer than `timeout_s`; ValueError, TypeError or RuntimeError, before any
    rank starts, for a call that cannot work. No process is left in any case.
    """
    _check_place()
    _check_numbers(world_size, timeout_s)
    _check_worker(worker, world_size, args)
    method = start_method or default_start_method()
    if method not in START_METHODS:
        raise ValueError(f"start_method is {method!r}; take one of {', '.join(START_METHODS)}.")
    chosen, payload = _backend(backend, world_size), pack_job(worker, args)
    warn_of_many(world_size)
    job = Job(world_size, chosen, float(timeout_s), dict(os.environ), payload)
    crew = Crew(job, context_for(method))
    try:
        crew.start()
        crew.wait()
    except BaseException:  # Ctrl-C, at whatever point
        crew.stop()
        raise
    if not quiet:
        show([member.out for member in crew.members], [member.err for member in crew.members])
    return _results(crew, timeout_s)


def warm_up() -> None:
    """Start the server of ranks now, in the background: the first `run_ranks` is then faster."""
    _check_place()
    context_for(default_start_method())
    start_helpers(default_start_method())


def default_start_method() -> str:
    """The fastest start method that is safe here."""
    return "forkserver" if sys.platform.startswith("linux") else "spawn"


def _results(crew: Crew, timeout_s: float) -> list[Any]:
    results: dict[int, Any] = {}
    error = error_of(crew.members, crew.verdict, timeout_s)
    for rank, member in enumerate(crew.members):
        if isinstance(member.report, Finished):
            try:
                results[rank] = unpack(member.report.payload)
            except Exception as reason:
                what = f"{type(reason).__name__}: {one_line(str(reason))}"
                text = f"rank {rank} returned a value that this process cannot read: {what}"
                error = error or RankError(text, rank)
    if error is not None:
        error.results = results
        raise error
    return [results[rank] for rank in sorted(results)]


def _check_place() -> None:
    if sys.platform == "win32":
        raise RuntimeError(
            "Ranks need Linux or macOS: on Windows install WSL (`wsl --install`), open the "
            "course's folder in it and start Jupyter there."
        )
    if child.inside_rank is not None:
        raise RuntimeError(
            "run_ranks was called inside a rank, and a rank cannot start ranks: call it from the "
            "notebook, with as many ranks as you need."
        )
    temporary_folder()


def _check_numbers(world_size: int, timeout_s: float) -> None:
    if not isinstance(world_size, int) or isinstance(world_size, bool):
        raise TypeError(f"world_size is {world_size!r}; give a whole number of ranks.")
    if not 1 <= world_size <= MAX_RANKS:
        raise ValueError(f"world_size is {world_size}; give 1 to {MAX_RANKS} ranks.")
    is_number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if not is_number or not 0 < timeout_s <= MAX_SECONDS:
        raise ValueError(
            f"timeout_s is {timeout_s!r}; give the seconds that the ranks may take, at most a day."
        )


def _check_worker(worker: Callable[..., Any], world_size: int, args: tuple) -> None:
    if not callable(worker):
        raise TypeError(
            f"The worker is of type {type(worker).__name__}; give the function itself, as in "
            "run_ranks(worker, 2), without calling it."
        )
    try:
        inspect.signature(worker).bind(0, world_size, *args)
    except TypeError as error:
        raise TypeError(
            f"run_ranks calls worker(rank, world_size{', ...' if args else ''}), here with "
            f"{2 + len(args)} arguments, but the worker does not take them: {error}."
        ) from None
    except ValueError:  # a built-in function without a signature
        return


def _backend(backend: str | None, world_size: int) -> str:
    if backend not in (None, "gloo", "nccl"):
        raise ValueError(f"backend is {backend!r}; take 'gloo', 'nccl' or None to let it choose.")
    if backend == "gloo":
        return backend
    import torch  # here, so that importing this module stays light

    num_gpus = torch.cuda.device_count()
    if backend == "nccl" and num_gpus < world_size:
        raise ValueError(
            f"nccl needs one GPU for each of the {world_size} ranks, and there are {num_gpus}: "
            "take fewer ranks or backend='gloo'."
        )
    return "nccl" if num_gpus >= world_size else "gloo"
