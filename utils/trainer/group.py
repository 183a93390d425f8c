"""The ranks of a run: how this process joins them, and how they fail together.

How it works: torchrun tells each rank its number and where the others are in environment
variables; without torchrun the run is one rank, with a group of one. Ranks talk by NCCL when the
machine has a GPU for each of its ranks, LOCAL_RANK choosing it, and otherwise by gloo on processors
with one thread each. `together` runs a piece of work on every rank and raises what went wrong on
any of them on all.

Left out: ranks that come and go while training runs; torchrun starts all of them anew, and
`--resume` takes the last checkpoint.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

from utils.checks.helpers import one_line
from utils.peers.agree import from_all
from utils.ranks.device import device_problem, use_loopback
from utils.trainer.settings import TrainerError

T = TypeVar("T")
WATCHES, UNDER_TORCHRUN = "COURSE_TRAINER_WATCHES_STDIN", "TORCHELASTIC_RUN_ID"
WAIT_S = 1800.0  # for a rank that is slower, such as one that saves to a slow disk
PR_SET_PDEATHSIG = 1


class Ranks(NamedTuple):
    """This process's place, and what it trains on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Rank 0 writes the log and speaks."""
        return self.rank == 0


def place_from_environment() -> tuple[int, int]:
    """(rank, world size) as torchrun tells them; one rank without it.

    Raises TrainerError when they are no numbers, or no place among the ranks.
    """
    texts = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(text.isdigit() for text in texts) or int(texts[0]) >= int(texts[1]):
        raise TrainerError(
            f"RANK={texts[0]} and WORLD_SIZE={texts[1]} are no place among ranks: let torchrun set "
            "both, or neither."
        )
    return int(texts[0]), int(texts[1])


@contextmanager
def joined(library: str = "torch") -> Iterator[Ranks]:
    """Join the group that the environment describes, and leave it; a group that exists is used."""
    torch.set_num_threads(1)
    rank, world_size = place_from_environment()
    is_mine = not dist.is_initialized()
    is_alone = "LOCAL_RANK" not in os.environ
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
    if is_mine:
        _join(rank, world_size, uses_gpus(library))
    is_on_gpu = "nccl" in dist.get_backend_config()
    place = f"cuda:{torch.cuda.current_device()}" if is_on_gpu else "cpu"
    is_done = False
    try:
        yield Ranks(rank, world_size, torch.device(place))
        is_done = True
    finally:  # after an error others may never answer: then this process ends without good-bye
        if is_mine and (is_done or world_size == 1):
            dist.destroy_process_group()
        if is_alone:
            del os.environ["LOCAL_RANK"]


def uses_gpus(library: str) -> bool:
    """A GPU for each rank of this machine; the course's DeepSpeed runs on processors only."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return library != "deepspeed" and torch.cuda.device_count() >= local


def together(work: Callable[[], T]) -> T:
    """This rank's result. Raises TrainerError on every rank if the work fails on any of them."""
    result, words = None, None
    try:
        result = work()
    except (TrainerError, OSError, ValueError, RuntimeError) as error:
        words = one_line(str(error) or type(error).__name__)
    said = from_all(words)
    failed = [rank for rank, each in enumerate(said) if each is not None]
    if failed:
        whose = f"rank {failed[0]}: " if failed[0] else ""
        raise TrainerError(whose + said[failed[0]])
    return result


def watch_parent() -> None:
    """End with whoever started this rank: a killed torchrun, or a notebook whose kernel is gone.

    Ctrl-C ends ranks other than 0 at once; rank 0 says where to go on.
    """
    if sys.platform.startswith("linux") and {UNDER_TORCHRUN, WATCHES} & os.environ.keys():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get("RANK", "0") != "0":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if WATCHES in os.environ:
        threading.Thread(target=_end_with_pipe, daemon=True).start()


def _end_with_pipe() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _join(rank: int, world_size: int, on_gpus: bool) -> None:
    options: dict[str, object] = {"timeout": timedelta(seconds=WAIT_S)}
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    if on_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        options["device_id"] = torch.device("cuda", torch.cuda.current_device())
    if world_size == int(os.environ.get("LOCAL_WORLD_SIZE", "1")):  # all on this machine
        use_loopback()
    if world_size == 1:
        options |= {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    try:
        dist.init_process_group(backend, **options)
    except (RuntimeError, ValueError) as error:
        reason = device_problem(error) or (
            f"{one_line(str(error))}: check that all machines reach the first one, and "
            "GLOO_SOCKET_IFNAME."
        )
        who = f"Rank {rank} of {world_size} could not join the others: "
        raise TrainerError(who + reason) from None
