"""How long the techniques written by hand take beside torch's own: part of `make bench`.

How it works: ours and torch's run in turn in one process (or on the same ranks), round after
round; the median of the rounds' ratios counts. The course's target is 1.05.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from utils.config import PRESETS, GPTConfig
from utils.measured import measured
from utils.model import build_gpt, next_token_loss
from utils.ranks import run_ranks
from utils.techniques.checkpointing import (
    Checkpoint,
    checkpoint_by_function,
    checkpoint_by_hooks,
)
from utils.techniques.data_parallel import DataParallel
from utils.techniques.segments import checkpointed, segments
from utils.timing import Comparison, Timing, compare

TARGET = 1.05
CHECKPOINTS: dict[str, tuple[Checkpoint, Checkpoint]] = {
    "function": (checkpoint_by_function, partial(torch_checkpoint, use_reentrant=True)),
    "hooks": (checkpoint_by_hooks, partial(torch_checkpoint, use_reentrant=False)),
}
RANKS_CONFIG = GPTConfig(6, 4, 128, 64, 256)


def checkpoint_ratios(
    config: GPTConfig = PRESETS["laptop-deep"], batch_size: int = 16, repeats: int = 9
) -> Iterator[str]:
    """Step time of both checkpoints against torch's, one block a segment."""
    model = build_gpt(config)
    tokens_BT = torch.zeros(batch_size, config.context_length, dtype=torch.long)
    plan = segments([1] * config.num_layers)

    def step(checkpoint: Checkpoint) -> None:
        with checkpointed(model, plan, checkpoint):
            loss = next_token_loss(model, tokens_BT, tokens_BT)
        loss.backward()

    for name, (ours, theirs) in CHECKPOINTS.items():
        pair: dict[str, Callable] = {"ours": partial(step, ours), "torch": partial(step, theirs)}
        timed = compare(pair, repeats)
        yield _line(f"checkpoint by {name} against torch's", timed)


def data_parallel_seconds(
    rank: int, world_size: int, config: GPTConfig, num_rounds: int
) -> list[tuple[float, float]]:
    """(ours, torch's) seconds of forward and backward on 8 sequences a rank, round by round."""
    networks = (
        DataParallel(build_gpt(config), world_size),
        DistributedDataParallel(build_gpt(config)),
    )
    tokens_BT = torch.zeros(8, config.context_length, dtype=torch.long)
    rounds = []
    for _ in range(3 + num_rounds):
        rounds.append(tuple(_one_step_s(network, tokens_BT) for network in networks))
    return rounds[3:]


def _one_step_s(network: torch.nn.Module, tokens_BT: torch.Tensor) -> float:
    dist.barrier()
    start_s = time.perf_counter()
    next_token_loss(network, tokens_BT, tokens_BT).backward()
    dist.barrier()  # a step ends when its slowest rank has ended
    seconds = time.perf_counter() - start_s
    network.zero_grad()
    return seconds


def data_parallel_ratio(num_rounds: int = 15, config: GPTConfig = RANKS_CONFIG) -> str:
    """Step time of our data parallelism against torch's, on two ranks."""
    rounds = run_ranks(data_parallel_seconds, 2, config, num_rounds)[0]
    ours, theirs = (Timing(tuple(times)) for times in zip(*rounds, strict=True))
    return _line("data parallelism on 2 ranks against torch's",
                 Comparison({"ours": ours, "torch": theirs}))  # fmt: skip


def _line(what: str, timed: Comparison) -> str:
    return f"{what}: {measured(timed.sentence('ours', 'torch'))} (target {TARGET})"
