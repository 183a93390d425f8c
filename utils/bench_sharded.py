"""How long a step of our FSDP takes beside torch's FSDP2, on the same two ranks: `make bench`.

How it works: both train the same GPT, in turn, step after step, optimizer included; the median of
the rounds' ratios counts. Twice: FSDP2 as it comes, whose reduce-scatter on gloo sends twice what
is needed, and with our ring, which leaves the rest of the two to be compared. Ours waits for every
message, as FSDP2 does on a processor. The course's target is 1.05.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
import torch.distributed as dist

from utils.bench_techniques import RANKS_CONFIG, TARGET
from utils.config import GPTConfig
from utils.measured import measured
from utils.model import build_gpt
from utils.peers import MakeSystem, System, TrainingJob
from utils.peers.fsdp2 import Fsdp2System
from utils.peers.ours import fsdp_system
from utils.ranks import run_ranks
from utils.timing import Comparison, Timing

PEERS: dict[str, MakeSystem] = {
    "FSDP2 as it comes": Fsdp2System,
    "FSDP2 with our ring": partial(Fsdp2System, ring=True),
}
WARM_UP, SEQUENCES = 3, 8  # sequences of each rank in a step


def sharded_seconds(
    rank: int, world_size: int, peer: MakeSystem, config: GPTConfig, num_rounds: int
) -> list[tuple[float, float]]:
    """(ours, the peer's) seconds of a whole step, round by round."""
    job = TrainingJob(config)
    systems = [
        make(build_gpt(config), rank, world_size, job) for make in (fsdp_system(), peer)
    ]
    tokens_BT = torch.zeros(SEQUENCES, config.context_length, dtype=torch.long)
    rounds = []
    for _ in range(WARM_UP + num_rounds):
        rounds.append(tuple(_one_step_s(system, tokens_BT) for system in systems))
    return rounds[WARM_UP:]


def sharded_ratios(num_rounds: int = 25, config: GPTConfig = RANKS_CONFIG) -> Iterator[str]:
    """A line for each peer."""
    for name, peer in PEERS.items():
        rounds = run_ranks(sharded_seconds, 2, peer, config, num_rounds)[0]
        ours, theirs = (Timing(tuple(times)) for times in zip(*rounds, strict=True))
        sentence = Comparison({"ours": ours, "torch": theirs}).sentence("ours", "torch")
        yield f"FSDP on 2 ranks against {name}: {measured(sentence)} (target {TARGET})"


def _one_step_s(system: System, tokens_BT: torch.Tensor) -> float:
    dist.barrier()
    start_s = time.perf_counter()
    system.backward(tokens_BT, tokens_BT, True)
    system.step()
    dist.barrier()  # a step ends when its slowest rank has ended
    return time.perf_counter() - start_s


if __name__ == "__main__":
    for line in sharded_ratios():
        print(line)
