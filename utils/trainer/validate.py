"""The loss on text that training never sees, by whatever holds the model.

How it works: always the same windows, whatever the batch, so that recipes can be compared. Rank r
takes every N-th of them, in as many forward passes as all other ranks, for a sharded model gathers
its weights in each; what fills up the last pass counts nothing.

Left out: the whole validation text, which would take longer than a short training.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from utils.corpus import Corpus
from utils.peers import System
from utils.peers.deepspeed_zero import DeepSpeedSystem
from utils.trainer.group import Ranks

NUM_WINDOWS = 64


@torch.no_grad()
def validation_loss(
    system: System, corpus: Corpus, ranks: Ranks, batch_size: int, context_length: int
) -> float:
    """Nats per byte, the same on all ranks, which all call it."""
    batch = corpus.batch(0, NUM_WINDOWS, context_length, "validation")
    network = system.engine if isinstance(system, DeepSpeedSystem) else system.model
    total = torch.zeros((), dtype=torch.float64)
    for windows_B, counts_B in _turns(ranks, batch_size):
        tokens_BT, targets_BT = (part[windows_B].to(ranks.device) for part in batch)
        total += (_losses(network, tokens_BT, targets_BT).cpu().double() * counts_B).sum()
    if hasattr(network, "reshard"):  # torch's FSDP2 keeps its root whole after a forward
        network.reshard()
    dist.all_reduce(total)
    return total.item() / NUM_WINDOWS


def _turns(ranks: Ranks, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """For each forward pass the windows, and 1 for each that counts."""
    per_rank = -(-NUM_WINDOWS // ranks.world_size)
    windows = torch.arange(per_rank) * ranks.world_size + ranks.rank
    counts = (windows < NUM_WINDOWS).double()
    windows = windows.clamp(max=NUM_WINDOWS - 1)
    return list(zip(windows.split(batch_size), counts.split(batch_size), strict=True))


def _losses(network: nn.Module, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """One mean a window."""
    logits_BTV = network(tokens_BT).float()
    losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")
    return losses_BT.mean(dim=1)
