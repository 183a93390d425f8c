"""What the server of ranks imports once, so that no rank imports it again.

How it works: ranks are forks of a small server process that has done these imports; its first start
takes seconds, each rank after that some hundredths. All of it is here, since most of the time goes
into torch itself: DDP, FSDP2, DTensor, checkpointing and `torch._dynamo`, which optimizers import
when they are first used, add about as much again; DeepSpeed, where it is installed, some tenths of
a second. `gc.freeze` keeps the ranks from copying the memory that they share. The server ends when
the notebook's process has gone, however it went, and then removes its socket.

Left out: anything that starts a thread, which a fork would lose.
"""

import atexit
import contextlib
import gc
import importlib
import os
import socket
import sys
import warnings
from pathlib import Path

MODULES = (
    "cloudpickle",
    "numpy",
    "torch",
    "torch.distributed",
    "torch.nn.parallel.distributed",
    "torch.optim",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.distributed.checkpoint",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.optim",
    "utils.ranks.child",
)


def _leave_no_socket() -> None:
    """Remove the socket that this server listens at: a notebook's process that is killed cannot."""
    descriptors = os.listdir("/proc/self/fd") if Path("/proc/self/fd").is_dir() else []
    for descriptor in descriptors:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as found:
            path = found.getsockname() if found.family == socket.AF_UNIX else ""
            if isinstance(path, str) and "listener-" in path:
                atexit.register(_remove, Path(path))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the notebook's process was faster
        path.unlink()
        path.parent.rmdir()


if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    _leave_no_socket()

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in MODULES:
        importlib.import_module(name)
    with contextlib.suppress(Exception):  # not installed, say: the lesson that needs it tells why
        importlib.import_module("utils.peers.deepspeed_import").import_deepspeed()

import torch  # noqa: E402

from utils.ranks import recorder  # noqa: E402

recorder.install()
torch.set_num_threads(1)  # the first call costs milliseconds, and starts no thread
torch.manual_seed(0)
gc.collect()
gc.freeze()
