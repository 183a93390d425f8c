"""Experiments that go wrong in every way, for test_record_apart.py; `register` adds them."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import torch

from utils.experiments.registry import EXPERIMENTS, SCRATCH, NotHere


class Bad:
    """An entry of the registry without a module."""

    def __init__(self, function):
        self.function = function

    def load(self):
        return self.function


def register():
    for function in FUNCTIONS:
        EXPERIMENTS[function.__name__] = Bad(function)


def note(pid):
    with open(os.environ["BAD_PIDS"], "a") as file:
        file.write(f"{pid}\n")


def fine(device):
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    return [{"device": device, "threads": torch.get_num_threads(), "gpus": gpus}]


def not_here(device):
    raise NotHere("needs two GPUs, and this machine has 0")


def raises(device):
    return [{}["seconds"]]


def no_memory(device):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")


def no_rows(device):
    return []


def not_json(device):
    return [{"seconds": float("nan")}]


def exits(device):
    print("a last word", flush=True)
    os._exit(7)


def killed(device):
    os.kill(os.getpid(), signal.SIGKILL)


def sleeps(device):
    """With a child process that sleeps too."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tempfile.mkdtemp(prefix="left-behind-", dir=os.environ[SCRATCH])
    note(os.getpid())
    note(child.pid)
    time.sleep(600)


def sleeps_deaf(device):
    """Does not listen to an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sleeps(device)


def _sleeping_rank(rank, world_size):
    note(os.getpid())
    time.sleep(600)


def sleeps_on_ranks(device):
    from utils.ranks import run_ranks

    note(os.getpid())
    run_ranks(_sleeping_rank, 2, timeout_s=600)


FUNCTIONS = (fine, not_here, raises, no_memory, no_rows, not_json, exits, killed, sleeps,
             sleeps_deaf, sleeps_on_ranks)  # fmt: skip
