"""Judge of lab 08, hybrid sharding: who gathers with whom, means, bytes between the nodes."""

from collections.abc import Callable

import torch

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_08_hybrid import (
    NUM_ROUNDS,
    SHARD_VALUES,
    VALUE_BYTES,
    Cluster,
    Run,
    hybrid_trial,
    mistakes,
    true_mean_P,
)

CLUSTERS = (Cluster(6, 2), Cluster(4, 2), Cluster(6, 3))
SHARD_BYTES = VALUE_BYTES * SHARD_VALUES
LIKELY_STUCK = (
    "dist.new_group is called by all ranks for all groups, in one order, also for groups without "
    "them; and a ring takes this rank's place in the group that it is given"
)
CONSECUTIVE = "ranks of a node follow each other: node k has k * gpus_per_node and those after it"


@exercise(
    "08.4",
    "two levels",
    hints=[
        "With 3 nodes of 2: ranks 0 and 1 share a model, and so do 2 and 3, 4 and 5. Ranks 0, 2 "
        "and 4 have the same shard of it. How many groups are there in all, and which messages "
        "does each of a rank's two groups carry?",
        "for first in range(0, world_size, gpus_per_node): dist.new_group(list(range(first, first "
        "+ gpus_per_node))), keep the one with this rank; then for place in range(gpus_per_node): "
        "dist.new_group(list(range(place, world_size, gpus_per_node))). gather: ring_all_gather in "
        "the first; mean: ring_reduce_scatter in the first, dist.all_reduce of the shard in the "
        "second, divide by world_size.",
    ],
    seconds=200,
    lab="lab_08_fsdp",
)
def judge_hybrid(answer: Callable) -> str:
    """Three nodes of two GPUs, two of two, two of three."""
    require_function(answer)
    for cluster in CLUSTERS:
        runs = _runs(cluster, answer, may_fail=True)
        if any(run.failed and not run.groups for run in runs):
            _require_near(CLUSTERS[1], _runs(CLUSTERS[1], answer, may_fail=True))
            runs = _runs(cluster, answer, may_fail=False)
        _require_near(cluster, runs)
        for rank, run in enumerate(runs):
            where = f"On {cluster}, rank {rank}"
            _require_gathered(where, cluster, run)
            _require_means(where, cluster, rank, run)
            _require_traffic(where, cluster, run)
    share = 2 * (cluster.num_nodes - 1) / cluster.num_nodes / cluster.gpus_per_node
    return (
        f"Right on {', on '.join(map(str, CLUSTERS))}. Weights never leave a node; on {cluster} "
        f"each rank sends {share:.2f} of the gradient to other nodes, and less is not possible."
    )


def _runs(cluster: Cluster, answer: Callable, may_fail: bool) -> list[Run]:
    more = cluster.gpus_per_node, may_fail
    return on_ranks(hybrid_trial, cluster.world_size, answer, *more, likely=LIKELY_STUCK)


def _require_near(cluster: Cluster, runs: list[Run]) -> None:
    for rank, run in enumerate(runs):
        if not run.groups:
            continue
        group = list(run.groups[0])
        what = (
            f"On {cluster}, rank {rank} gathers weights in a group of {group}, which is not one "
            "node: whole weights cross the slow link"
        )
        likely = f"the neighbours are wrong: {CONSECUTIVE}"
        same_place = [each for each in range(cluster.world_size)
                      if cluster.place(each) == cluster.place(rank)]  # fmt: skip
        if group == same_place:
            likely = "the two groups are swapped: weights are shared inside of a node"
        if len(group) == cluster.world_size:
            likely = "weights are gathered from all ranks: only those of a node share"
        raise NotYet(what, likely=likely)


def _require_gathered(where: str, cluster: Cluster, run: Run) -> None:
    for number, got in enumerate(run.gathered):
        likely = "flat_P holds the shards of the node's ranks, in their order"
        equal = torch.equal(got, cluster.weights_P(number))
        require(equal, f"{where}: the gathered weights are wrong", likely=likely)
    allowed = NUM_ROUNDS * (cluster.gpus_per_node - 1) * SHARD_BYTES
    what = f"{where}: right, but a gather sends too many bytes"
    sent = run.gather_inside
    likely = "a gather sends each shard to each rank of the node once: an all-gather"
    require(sent <= allowed, what, allowed // NUM_ROUNDS, sent // NUM_ROUNDS, likely)


def _require_means(where: str, cluster: Cluster, rank: int, run: Run) -> None:
    for number, got in enumerate(run.means):
        true = cluster.shard(true_mean_P(cluster, number), rank)
        if got.shape == true.shape and torch.allclose(got, true, rtol=1e-5, atol=1e-5):
            continue
        known = mistakes(cluster, rank, number)
        found = (text for text, value in known if torch.allclose(got, value, rtol=1e-5, atol=1e-5))
        likely = next(found, "put the mean into shard_S" if got.isnan().any() else "")
        what = f"{where}: this rank's shard of the mean is wrong"
        raise NotYet(what, true[:3].tolist(), got[:3].tolist(), likely)


def _require_traffic(where: str, cluster: Cluster, run: Run) -> None:
    num_nodes, size = cluster.num_nodes, cluster.gpus_per_node
    allowed = NUM_ROUNDS * 2 * (num_nodes - 1) * SHARD_BYTES // num_nodes
    sent = run.mean_between
    if sent > allowed + 2 * NUM_ROUNDS * VALUE_BYTES:
        likely = "reduce-scatter inside of the node first; then only a shard has to cross"
        if any(len(group) == cluster.world_size for group in run.mean_groups):
            likely = "one message for all ranks crosses the slow link with the whole gradient"
        elif sent >= size * allowed - 8 * NUM_ROUNDS * VALUE_BYTES:
            likely = f"an all-reduce of the whole gradient between nodes: {likely}"
        what = f"{where}: right, but a mean sends too many bytes to other nodes"
        raise NotYet(what, allowed // NUM_ROUNDS, sent // NUM_ROUNDS, likely)
    allowed = NUM_ROUNDS * (size - 1) * SHARD_BYTES
    likely = (
        "an all-reduce where a reduce-scatter is enough; gloo's own reduce_scatter is one, too: "
        "ring_reduce_scatter"
    )
    what = f"{where}: right, but a mean sends too many bytes inside of the node"
    require(run.mean_inside <= allowed, what, allowed // NUM_ROUNDS,
            run.mean_inside // NUM_ROUNDS, likely)  # fmt: skip
