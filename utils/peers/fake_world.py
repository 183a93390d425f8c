"""Memory of FSDP2 on many ranks without the ranks: torch's fake group and its memory tracker.

How it works: a fake process group takes part in collectives for ranks that do not exist, and fake
tensors have shapes but no values, so one process can follow one rank of a thousand in seconds.
torch's `FSDPMemTracker` watches two steps and says what every byte was for. It runs as a rank of
`run_ranks`, in a process of its own: this one's process group is never touched.

Left out: what the other ranks' messages cost in time, fragmentation, the allocator's rounding.
`FSDPMemTracker` and the fake group are torch's internal tools: their place may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.peers import loss_of
from utils.peers.fsdp2 import Fsdp2Options, make_mesh, shard_model
from utils.ranks import run_ranks

# What torch's tracker calls it -> what it is called here.
CATEGORIES = {
    "Sharded Param": "parameters",  # this rank's shards, padding included
    "Sharded Grad": "gradients",  # their gradients, once they are reduced
    "OptState": "optimizer state",  # Adam's moments and counters, and its scratch in a step
    "Unsharded Param": "gathered weights",  # whole weights of the units that work
    "All Gather": "gather messages",  # where gathered weights arrive, before they are copied out
    "Unsharded Grad": "whole gradients",  # of a unit whose backward is done
    "Reduce Scatter": "reduce messages",  # gradients on their way
    "Activation": "activations",  # all that forward makes
    "Temp": "temporary",  # all that backward makes, a unit's gradients until it is done
    "Buffer": "buffers",
    "Inputs": "batch",
}


@dataclass(frozen=True)
class FakeWorldBytes:
    """Bytes on one rank by category (`CATEGORIES`): after backward, and at the peak of a step."""

    world_size: int
    held: dict[str, int]
    peak: dict[str, int]

    @property
    def held_bytes(self) -> int:
        """Shards, gradients and optimizer state."""
        return sum(self.held[name] for name in ("parameters", "gradients", "optimizer state"))

    @property
    def peak_bytes(self) -> int:
        """All categories at the highest moment of the second step."""
        return sum(self.peak.values())


def fake_world_bytes(
    config: GPTConfig, world_size: int, batch_size: int, low_precision: bool = False,
    timeout_s: float = 300.0, **options: Any,
) -> FakeWorldBytes:  # fmt: skip
    """FSDP2's bytes on rank 0 of `world_size`, each with `batch_size` sequences.

    `options` are those of `Fsdp2Options`. Takes some seconds, more with more layers, and as long
    for 1,024 ranks as for 8. Raises ValueError for a world size that the options do not allow.
    """
    if world_size < 2:
        raise ValueError(f"world_size is {world_size}: a fake world has at least 2 ranks.")
    chosen = Fsdp2Options(**options)
    chosen.check(world_size)
    arguments = (config, world_size, batch_size, low_precision, chosen)
    return run_ranks(_follow_one_rank, 1, *arguments, timeout_s=timeout_s)[0]


def _follow_one_rank(
    rank: int, _: int, config: GPTConfig, world_size: int, batch_size: int,
    low_precision: bool, options: Fsdp2Options,
) -> FakeWorldBytes:  # fmt: skip
    """A worker: its real group, of this rank alone, makes place for the fake one."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.destroy_process_group()
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    mesh = make_mesh("cpu", world_size, options)
    # Cutting every parameter into a thousand views is slow with fake tensors, quick on "meta".
    model = shard_model(build_gpt(config, device="meta"), mesh, low_precision, options)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        held, peak = _two_steps(model, config, batch_size)
    return FakeWorldBytes(world_size, held, peak)


def _two_steps(
    model: torch.nn.Module, config: GPTConfig, batch_size: int
) -> tuple[dict[str, int], dict[str, int]]:
    """The second step, when Adam has its state: bytes after backward, and at the peak."""
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker

    optimizer = torch.optim.AdamW(model.parameters())
    shape = (batch_size, config.context_length)
    batch = [torch.zeros(shape, dtype=torch.long) for _ in range(2)]
    tracker = FSDPMemTracker(model, optimizer)
    tracker.track_inputs(tuple(batch))
    with tracker:
        for step in range(2):
            loss_of(model, *batch).backward()
            held = tracker.get_tracker_snapshot("current")
            optimizer.step()
            optimizer.zero_grad()
            if step == 0:
                tracker.reset_mod_stats()
    return _in_words(held), _in_words(tracker.get_tracker_snapshot("peak"))


def _in_words(snapshot: dict[torch.device, dict[Any, int]]) -> dict[str, int]:
    """One device's categories under the course's names."""
    (by_kind,) = snapshot.values()
    sizes = {getattr(kind, "value", kind): size for kind, size in by_kind.items()}
    return {name: sizes.get(kind, 0) for kind, name in CATEGORIES.items()}
