"""Cells for the tests of notebooks on ranks: a small training, and accidents that befall rank 1."""

from __future__ import annotations

from pathlib import Path

from tests.trainer_runs import write_text

SET_UP = """
import contextlib, ctypes, os, resource, signal, subprocess, sys, threading, time
import torch
import torch.distributed as dist
from torch import nn
from utils.ranks import run_ranks
from utils.techniques.data_parallel import DataParallel
from utils.techniques.fsdp import FullySharded
from utils.techniques.sharding import Sharding
from utils.timing import use_one_thread

use_one_thread()
"""
TRAIN = """
def train(rank, world_size, method, accident=None, steps=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    if method == "fsdp":
        parameters = FullySharded(model, list(model), Sharding(rank, world_size)).parameters()
    else:
        parameters = list(model.parameters())
        model = DataParallel(model, world_size)
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    mine_BD = (torch.arange(32.0).reshape(8, 4) / 32)[rank::world_size]
    losses = []
    for step in range(steps):
        if accident and step == 1 and rank == 1:
            accident()
        loss = model(mine_BD).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach() / world_size
        dist.all_reduce(mean)
        losses.append(mean.item())
    return losses

print(run_ranks(train, 1, "ours"))
"""
TRAIN_WELL = "print(run_ranks(train, 2, 'fsdp'))"
LIMIT_S = 4
PLACE = "\n  line 14 of train: `accident()`\n  line {number} of accident: `{line}`\n"
WAITED = "all_reduce of 49 float32 values, line 16 of train: `loss.backward()`."
LATE = f"The ranks did not finish in {LIMIT_S} s and were stopped.\nrank 0 waited in {WAITED}\n"
LONGER = "\nIf they need longer, give run_ranks a larger timeout_s."
AGREE = (
    "\nAll ranks of a group must call the same collectives, in the same order and with the same "
    "shapes."
)
DO_NOT_FIT = "The ranks' collectives do not fit together, and gloo aborts the process then "
STUCK = "The ranks wait for each other and none can go on.\n"
NO_MEMORY = (
    "There was no memory left for it: take fewer ranks, or a smaller batch, model or tensor."
)
LEAVE_SPACE = """\
used_bytes = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used_bytes + 2**28, used_bytes + 2**28))
kept = []
"""
RAISES = {  # what rank 1 does, and what is said of it before and after the place
    "raises": ("raise ValueError('no batch')", "ValueError: no batch", ""),
    "exits": ("sys.exit(0)", "SystemExit: 0", ""),
    "interrupts itself": ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
    "asks": ("input()", "EOFError: EOF when reading a line", ""),
    "asks for too much": ("bytearray(10**15)", "MemoryError", NO_MEMORY),
    "runs out of address space": (
        LEAVE_SPACE + "while True: kept.append(bytearray(2**24))", "MemoryError", NO_MEMORY
    ),
    "prints a gigabyte": (
        "for _ in range(1_000): os.write(1, b'x' * 2**20)\nraise ValueError('after')",
        "ValueError: after", "",
    ),
    "leaves a child": (
        "print(subprocess.Popen(['sleep', '1000']).pid)\nraise ValueError('with a child')",
        "ValueError: with a child", "",
    ),
    "leaves the group": (
        "dist.destroy_process_group()\nraise ValueError('no group')", "ValueError: no group", "",
    ),
}  # fmt: skip
DIES = {
    "is killed": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        "was killed (SIGKILL); if nobody did that, the machine had no memory left.",
    ),
    "is ended": ("os.kill(os.getpid(), signal.SIGTERM)", "got SIGTERM."),
    "aborts": ("os.abort()", "was aborted (SIGABRT) by a library of C++ code, most often gloo."),
    "crashes": ("ctypes.string_at(0)", "crashed (SIGSEGV)."),
    "leaves": ("os._exit(0)", "ended itself with exit code 0, as os._exit does."),
}
HANGS = {
    "sleeps": (
        "time.sleep(1000)",
        "was in line 2 of accident: `time.sleep(1000)`; its last collective was all_reduce of 1 "
        "float32 values.",
    ),
    "loops": ("while True: pass", "was in line 2 of accident: `while True: pass`; its last "),
    "computes in C": (
        "sum(range(10**13))",
        "gave no answer: it was inside one long call of C code.",
    ),
    "is stopped": (
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "gave no answer: it was inside one long call of C code.",
    ),
    "prints for ever": (
        "while True: print('x' * 999)",
        "was in line 2 of accident: `while True: print('x' * 999)`; its last collective was ",
    ),
}
DISAGREES = {
    "an extra collective": (
        "dist.all_reduce(torch.ones(3))",
        f"{DO_NOT_FIT}(SIGABRT).\nrank 0 called {WAITED}\nrank 1 called all_reduce of 3 float32 "
        f"values, line 2 of accident: `dist.all_reduce(torch.ones(3))`.{AGREE}",
    ),
    "another type": (
        "dist.all_reduce(torch.ones(49, dtype=torch.float64))",
        f"{DO_NOT_FIT}(SIGABRT).\nrank 0 called {WAITED}\nrank 1 called all_reduce of 49 float64 ",
    ),
    "another collective": (
        "dist.barrier()",
        f"{STUCK}rank 0 waited in {WAITED}\nrank 1 waited in barrier, line 2 of accident: "
        f"`dist.barrier()`.{AGREE}",
    ),
}


def with_accident(lines: str, timeout_s: float = 60) -> str:
    """A cell that trains on two ranks, of which rank 1 runs `lines` before its second step."""
    body = "\n".join(f"    {line}" for line in lines.split("\n"))
    call = f'run_ranks(train, 2, "ours", accident, timeout_s={timeout_s})'
    return f"def accident():\n{body}\n\n{call}"


def place_of(lines: str) -> str:
    """Where the last of these lines stands, as a report says it."""
    *_, last = lines.split("\n")
    return PLACE.format(number=len(lines.split("\n")) + 1, line=last)


def with_trainer(folder: Path, *words: str, event: str = "saved", steps: int = 100_000) -> str:
    """A cell that trains in `folder`/run on two ranks and prints at each event of this kind."""
    text = write_text(folder / "text.txt")
    return f"""
from utils.config import GPTConfig
from utils.recipe import TrainingRecipe
from utils.trainer.start import start_training

log = start_training(
    TrainingRecipe(method="ddp", num_ranks=2, batch_size=4),
    "--no-memory", "--steps", "{steps}", "--save-every", "5", *{words!r},
    folder={str(folder / "run")!r}, text={str(text)!r},
    config=GPTConfig(num_layers=2, num_heads=2, model_dim=32, context_length=32),
    report=lambda event: event["event"] == "{event}" and print("begin"),
)
"""
