"""What a rank runs: join the group, call the worker, send what it returned or raised.

How it works: a second thread of the rank listens to the notebook's process. It answers "where are
you?" while the worker waits, and ends the rank, with all processes that it started, when the
notebook's process is gone. The rank never ends by itself: the notebook's process ends all ranks
when the last one has reported, so that no rank loses a peer that was only faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import random
import signal
import sys
import threading
import time
import warnings
from datetime import timedelta
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

from utils.ranks.device import device_problem, use_loopback
from utils.ranks.job import Finished, Job, Raised
from utils.ranks.page import Page
from utils.ranks.pickling import pack_result, unpack
from utils.ranks.scratch import remove
from utils.ranks.whereabouts import lines_of, where_now

inside_rank: int | None = None  # the number of this rank; None in every other process
PR_SET_PDEATHSIG = 1
LATER_THAN_OURS_S = 300.0  # gloo's own limit comes after run_ranks' limit, whose message says more


def rank_main(job: Job, channel: Connection, out: Connection, err: Connection) -> None:
    """Run one rank in a process of its own; returns only when it is killed."""
    global inside_rank
    inside_rank = job.rank
    _live_and_die_with_the_notebook(job)
    _capture(out, err)
    page = Page(job.pages, job.rank)
    sending = threading.Lock()
    listener = threading.Thread(target=_listen, args=(job, channel, sending, page), daemon=True)
    listener.start()
    report = _run(job, page)
    _flush()
    with sending:
        channel.send(report)
    listener.join()


def call_worker(worker: Any, job: Job, arguments: tuple) -> Any:
    """Call the worker: the learner's lines are those above this frame."""
    return worker(job.rank, job.world_size, *arguments)


def _run(job: Job, page: Page) -> Finished | Raised:
    stage = "start"
    try:
        _join_group(job, page)
        stage = "load"
        worker, arguments = unpack(job.payload)
        stage = "work"
        result = call_worker(worker, job, arguments)
        stage = "result"
        return Finished(pack_result(result))
    except BaseException as error:
        return _raised(stage, error)


def _raised(stage: str, error: BaseException) -> Raised:
    try:
        message = str(error)[:5_000]
    except Exception:
        message = "its message could not be read"
    lines = lines_of(error.__traceback__) if stage == "work" else ()
    return Raised(stage, type(error).__name__, message, lines, time.monotonic())


def _join_group(job: Job, page: Page) -> None:
    _use_environment(job)
    import torch
    import torch.distributed as dist

    from utils.ranks import recorder

    torch.set_num_threads(1)
    _fix_random_numbers(torch)
    recorder.install()
    limit = timedelta(seconds=job.timeout_s + LATER_THAN_OURS_S)
    store = dist.FileStore(job.store, job.world_size)
    store.set_timeout(limit)
    options: dict[str, Any] = {}
    if job.backend == "nccl":
        torch.cuda.set_device(job.rank)
        options["device_id"] = torch.device("cuda", job.rank)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if job.backend == "nccl" else job.backend,
            store=store,
            rank=job.rank,
            world_size=job.world_size,
            timeout=limit,
            **options,
        )
    except RuntimeError as error:
        if problem := device_problem(error):
            raise RuntimeError(problem) from None
        raise
    recorder.listen(page.note)


def _fix_random_numbers(torch: Any) -> None:
    """The same start in every rank and every run, as separate processes of torch have it."""
    torch.default_generator.manual_seed(0)
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)


def _use_environment(job: Job) -> None:
    """The notebook's environment of now: the server that ranks come from has an older one."""
    for name in os.environ.keys() - job.environment.keys():
        del os.environ[name]
    changed = {name: text for name, text in job.environment.items() if os.environ.get(name) != text}
    os.environ.update(changed)
    local = {"RANK": job.rank, "LOCAL_RANK": job.rank, "OMP_NUM_THREADS": 1}
    sizes = {"WORLD_SIZE": job.world_size, "LOCAL_WORLD_SIZE": job.world_size}
    os.environ.update({name: str(value) for name, value in (local | sizes).items()})
    use_loopback()


def _live_and_die_with_the_notebook(job: Job) -> None:
    """A group of its own: Ctrl-C goes to the notebook alone, and one kill reaches all it started.

    Linux also kills the rank with its parent: a worker that never lets another thread run cannot
    stop that. (Not if there are files to remove: the thread that listens does both.) The parent,
    the server, ends when nobody holds its pipe any more, so a rank, which multiprocessing gives a
    copy, lets go of it.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux") and not job.folder:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    server = forkserver._forkserver
    if getattr(server, "_forkserver_alive_fd", None) is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def _listen(job: Job, channel: Connection, sending: threading.Lock, page: Page) -> None:
    """Answer the notebook's process; when it has gone, end this rank and its children."""
    with contextlib.suppress(EOFError, OSError):
        while channel.recv_bytes():
            answer = where_now(page.calls)
            with sending:
                channel.send(answer)
    remove(job.folder)
    os.killpg(0, signal.SIGKILL)


def _capture(out: Connection, err: Connection) -> None:
    """Send what is printed, by C code too, to the notebook's process; warnings in one short line.

    A warning's usual form has the path of a file, which differs from machine to machine.
    """
    for connection, number, name in ((out, 1, "stdout"), (err, 2, "stderr")):
        os.dup2(connection.fileno(), number)
        connection.close()
        raw = io.FileIO(number, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)
    warnings.formatwarning = lambda message, category, *rest: f"{category.__name__}: {message}\n"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the worker may have replaced or closed it
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what C code has printed
