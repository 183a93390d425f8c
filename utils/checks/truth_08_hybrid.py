"""What lab 08's hybrid sharding is judged by: values, and bytes that leave the node, on real ranks.

How it works: `gpus_per_node` consecutive ranks are a node; there is one machine in truth, so the
trial listens to each collective and asks who is in its group. A message crosses if it is sent to
a rank of another node, or belongs to a collective whose group has members elsewhere.
Suffixes: P all values, S = P / gpus_per_node values of one rank's shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from utils.checks.helpers import require
from utils.ranks import recorder
from utils.ranks.calls import Call

SHARD_VALUES, VALUE_BYTES = 24, 4
NUM_ROUNDS = 2
Result = TypeVar("Result")
LIKELY_NOTHING = "the function ends without a return"


@dataclass(frozen=True)
class Cluster:
    """Nodes of equally many GPUs."""

    world_size: int
    gpus_per_node: int

    def __str__(self) -> str:
        return f"{self.num_nodes} nodes of {self.gpus_per_node} GPUs"

    @property
    def num_nodes(self) -> int:
        """Replicas of the model."""
        return self.world_size // self.gpus_per_node

    def node(self, rank: int) -> int:
        """Where a rank is."""
        return rank // self.gpus_per_node

    def place(self, rank: int) -> int:
        """Which shard a rank has."""
        return rank % self.gpus_per_node

    @property
    def num_values(self) -> int:
        """P."""
        return self.gpus_per_node * SHARD_VALUES

    def gradient_P(self, rank: int, number: int) -> Tensor:
        """What a rank has before the mean, in round `number`."""
        generator = torch.Generator().manual_seed(100 * number + rank)
        return torch.randint(-50, 50, (self.num_values,), generator=generator).float()

    def weights_P(self, number: int) -> Tensor:
        """What is gathered, in round `number`."""
        return torch.arange(self.num_values).float() + 1000 * number

    def shard(self, values_P: Tensor, rank: int) -> Tensor:
        """A rank's part."""
        return values_P.chunk(self.gpus_per_node)[self.place(rank)]


class Traffic:
    """The bytes of one function, inside of the node and out of it; the groups that reach out."""

    def __init__(self, cluster: Cluster, rank: int) -> None:
        self._cluster, self._node = cluster, cluster.node(rank)
        self.inside_bytes = self.between_bytes = 0
        self.groups: set[tuple[int, ...]] = set()  # that reach out of the node

    def __call__(self, call: Call) -> None:
        """Count one collective."""
        members = (call.root,) if call.kind == "send" else call.group_ranks
        if all(self._cluster.node(each) == self._node for each in members):
            self.inside_bytes += call.sent.data_bytes
        else:
            self.between_bytes += call.sent.data_bytes
            self.groups.add(call.group_ranks)


@dataclass
class Run:
    """What one rank did; bytes of all rounds. `failed`: gather has raised, if that is allowed."""

    gathered: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    gather_inside: int = 0
    gather_between: int = 0
    mean_inside: int = 0
    mean_between: int = 0
    groups: Sequence[tuple[int, ...]] = ()  # of gathers that reach out of the node
    mean_groups: Sequence[tuple[int, ...]] = ()
    failed: bool = False


def hybrid_trial(
    rank: int, world_size: int, answer: Callable, gpus_per_node: int, may_fail: bool
) -> Run:
    """Gather and average twice."""
    cluster, run = Cluster(world_size, gpus_per_node), Run()
    pair = answer(rank, world_size, gpus_per_node)
    likely = LIKELY_NOTHING if pair is None else ""
    is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(callable, pair))
    require(is_pair, "Return the two functions, (gather, mean)", got=pair, likely=likely)
    gather, mean = pair
    traffic = Traffic(cluster, rank)
    try:
        run.gathered = _heard(traffic, lambda: _gathers(cluster, rank, gather))
    except (ValueError, RuntimeError):
        if not may_fail:
            raise
        run.failed = True
    run.groups = sorted(traffic.groups)
    run.gather_inside, run.gather_between = traffic.inside_bytes, traffic.between_bytes
    if run.failed or run.groups:  # the judge says why; a mean over these groups may never end
        return run
    traffic = Traffic(cluster, rank)
    run.means = _heard(traffic, lambda: _means(cluster, rank, mean))
    run.mean_groups = sorted(traffic.groups)
    run.mean_inside, run.mean_between = traffic.inside_bytes, traffic.between_bytes
    return run


def bytes_sent(cluster: Cluster, rank: int, function: Callable[[], object]) -> tuple[int, int]:
    """What a rank sends inside of its node, and out of it, while a function runs."""
    traffic = Traffic(cluster, rank)
    _heard(traffic, function)
    return traffic.inside_bytes, traffic.between_bytes


def _heard(traffic: Traffic, function: Callable[[], Result]) -> Result:
    recorder.listen(traffic)
    try:
        return function()
    finally:
        recorder.stop_listening(traffic)


def _gathers(cluster: Cluster, rank: int, gather: Callable) -> list[Tensor]:
    results = []
    for number in range(NUM_ROUNDS):
        results.append(torch.full((cluster.num_values,), torch.nan))
        gather(results[-1], cluster.shard(cluster.weights_P(number), rank).clone())
    return results


def _means(cluster: Cluster, rank: int, mean: Callable) -> list[Tensor]:
    results = []
    for number in range(NUM_ROUNDS):
        results.append(torch.full((SHARD_VALUES,), torch.nan))
        mean(results[-1], cluster.gradient_P(rank, number))
    return results


def true_mean_P(cluster: Cluster, number: int, ranks: Sequence[int] | None = None) -> Tensor:
    """The mean over all ranks, or over some."""
    ranks = range(cluster.world_size) if ranks is None else ranks
    return torch.stack([cluster.gradient_P(rank, number) for rank in ranks]).mean(0)


def mistakes(cluster: Cluster, rank: int, number: int) -> list[tuple[str, Tensor]]:
    """(mistake, the shard that it leads to)."""
    world, size = cluster.world_size, cluster.gpus_per_node
    ranks = range(world)
    node = [each for each in ranks if cluster.node(each) == cluster.node(rank)]
    across = [each for each in ranks if cluster.place(each) == cluster.place(rank)]
    drift = "the mean is over this node only, so the replicas drift apart"
    no_node = "the mean is over the replicas only: the other GPUs of the node have batches, too"
    true, own = true_mean_P(cluster, number), cluster.gradient_P(rank, number)
    in_node, in_replicas = (true_mean_P(cluster, number, each) for each in (node, across))
    others = [each for each in range(size) if each != cluster.place(rank)]
    whole = [
        ("sum instead of mean: divide by the number of all ranks", true * world),
        ("divided by the number of nodes only: a node's ranks are averaged as well", true * size),
        ("divided by the ranks of a node only", true * cluster.num_nodes),
        ("divided by the number of ranks twice", true / world),
        (drift, in_node),
        (drift, in_node * size / world),
        (drift, in_node * size),
        (no_node, in_replicas),
        (no_node, in_replicas * cluster.num_nodes / world),
        (no_node, in_replicas * cluster.num_nodes),
        ("nothing of the other ranks has arrived", own),
        ("nothing of the other ranks has arrived", own / world),
    ]  # fmt: skip
    found = [(text, cluster.shard(value, rank)) for text, value in whole]
    mixed = "different shards are added up: the replicas are in other nodes, at the same place"
    found.append((mixed, in_node.view(size, -1).sum(0) * size / world))
    wrong_place = "this is another rank's shard: the k-th GPU of a node has the k-th"
    return found + [(wrong_place, cluster.shard(true, each)) for each in others]
