"""Workers that fail, each in its way; `tests/test_ranks_failures.py` says what is then told."""

import ctypes
import os
import signal
import sys
import tempfile
import threading
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.ranks import run_ranks


def helper(x):
    raise ValueError(f"bad shape of {object()}\nsecond line")


def one_raises(rank, world_size):
    if rank == 1:
        helper(rank)
    dist.all_reduce(torch.ones(4))


def all_raise(rank, world_size):
    {}["k"]


def two_raise(rank, world_size):
    if rank == 0:
        raise ValueError("first")
    if rank == 2:
        raise KeyError("other")


def exits(rank, world_size):
    if rank == 1:
        sys.exit(3)


def one_sided(rank, world_size):
    if rank == 1:
        dist.all_reduce(torch.ones(4))
    return rank


def one_sided_later(rank, world_size):
    work = dist.all_reduce(torch.ones(4), async_op=True) if rank else None
    if rank:
        work.wait()


def different_collectives(rank, world_size):
    x = torch.ones(2, 2)
    if rank == 0:
        dist.all_reduce(x)
    else:
        dist.broadcast(x, 0)


def nobody_sends(rank, world_size):
    if rank == 0:
        dist.recv(torch.ones(3), 1)
    dist.barrier()


def different_shapes(rank, world_size):
    dist.all_reduce(torch.ones(4 + 4 * rank))


def only_one_trains(rank, world_size):
    model = DistributedDataParallel(nn.Linear(4, 4))
    if rank == 0:
        model(torch.ones(2, 4)).sum().backward()


def killed(rank, world_size):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def crashes(rank, world_size):
    if rank == 1:
        ctypes.string_at(0)
    dist.barrier()


def leaves(rank, world_size):
    if rank == 1:
        os._exit(3)
    return "done"


def sleeps(rank, world_size):
    if rank == 1:
        time.sleep(1000)
    dist.barrier()


def never_yields(rank, world_size):
    if rank == 1:
        sum(range(10**13))
    return "done"


def nested(rank, world_size):
    run_ranks(all_raise, 2)


def with_a_path(rank, world_size):
    raise OSError(f"no file {tempfile.gettempdir()}/x1b2/log, and nothing else")


def unread(rank, world_size, argument):
    return argument


class Unreadable:
    def __reduce__(self):
        return (int, ("no number",))


def a_thread_acts(rank, world_size):
    """All main threads wait, for longer than it takes to call it a deadlock; it is none."""
    x = torch.ones(1)

    def send_later():
        time.sleep(4.5)
        dist.send(x, 0)

    if rank == 1:
        threading.Thread(target=send_later).start()
        dist.recv(x, 0)
    if rank == 0:
        dist.recv(x, 1)
        dist.send(x, 1)
    return rank
