"""What a collective costs on a cluster: flat, or in phases inside the nodes and between them.

How it works: a flat ring or tree ignores the nodes, so each of its steps waits for a message over
the slower link. The hierarchical schedule works in phases, of which each one uses one link only:

    all-reduce      reduce-scatter inside, all-reduce of 1/g between, all-gather inside
    reduce-scatter  reduce-scatter inside, reduce-scatter of 1/g between
    all-gather      all-gather of 1/g between, all-gather inside
    broadcast       broadcast to one GPU of each node, broadcast inside
    all-to-all      all-to-all inside, all-to-all between

with g GPUs in a node, each of which does its part of the middle phase over its own link. Every
phase takes the cheaper of ring and tree. The tests prove these phases message by message.

Left out: running the phases of successive pieces at the same time, as NCCL does; at best the sum
of the phases would become the longest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from utils.simulate.links import Cluster, Link
from utils.simulate.traffic import ALGORITHMS, COLLECTIVES, Traffic, traffic

SCHEDULES = ("ring", "tree", "hierarchical", "best")


@dataclass(frozen=True)
class Phase:
    """One collective by one algorithm among `num_ranks` ranks over one link."""

    collective: str
    algorithm: str
    num_ranks: int
    link: Link
    traffic: Traffic

    @property
    def seconds(self) -> float:
        """Time of this phase."""
        return self.traffic.seconds(self.link)


@dataclass(frozen=True)
class CollectiveCost:
    """The phases of one collective, one after the other; none if there is one GPU only."""

    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        """Time of all phases."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def num_steps(self) -> int:
        """Latencies paid."""
        return sum(phase.traffic.num_steps for phase in self.phases)

    @property
    def sent_bytes(self) -> float:
        """Bytes sent by the GPU that sends most."""
        return sum(phase.traffic.sent_bytes for phase in self.phases)


@lru_cache(maxsize=8192)
def collective_cost(
    collective: str, num_bytes: float, cluster: Cluster, schedule: str = "best"
) -> CollectiveCost:
    """Cost of a collective on `num_bytes` among all GPUs of the cluster.

    `schedule` is "ring", "tree", "hierarchical" or "best", the cheapest of the three. Sizes as in
    `utils.simulate.traffic`. Raises ValueError for an unknown name.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"There is no schedule {schedule!r}; take {', '.join(SCHEDULES)}.")
    if schedule == "best":
        tried = [collective_cost(collective, num_bytes, cluster, name) for name in SCHEDULES[:-1]]
        return min(tried, key=lambda cost: cost.seconds)
    if schedule == "hierarchical":
        return _hierarchical(collective, num_bytes, cluster)
    link = cluster.inside if cluster.num_nodes == 1 else _slower(cluster)
    return _cost([_phase(collective, (schedule,), num_bytes, cluster.num_gpus, link)])


def collective_seconds(
    collective: str, num_bytes: float, cluster: Cluster, schedule: str = "best"
) -> float:
    """Seconds of `collective_cost`; bind the cluster with functools.partial for the builders."""
    return collective_cost(collective, num_bytes, cluster, schedule).seconds


def _hierarchical(collective: str, num_bytes: float, cluster: Cluster) -> CollectiveCost:
    part = num_bytes / cluster.gpus_per_node
    plans = {
        "all-reduce": [
            ("reduce-scatter", num_bytes, "inside"),
            ("all-reduce", part, "between"),
            ("all-gather", num_bytes, "inside"),
        ],
        "reduce-scatter": [
            ("reduce-scatter", num_bytes, "inside"),
            ("reduce-scatter", part, "between"),
        ],
        "all-gather": [("all-gather", part, "between"), ("all-gather", num_bytes, "inside")],
        "broadcast": [("broadcast", num_bytes, "between"), ("broadcast", num_bytes, "inside")],
        "all-to-all": [("all-to-all", num_bytes, "inside"), ("all-to-all", num_bytes, "between")],
    }
    if collective not in plans:
        raise ValueError(f"There is no collective {collective!r}; take {', '.join(COLLECTIVES)}.")
    ranks = {"inside": cluster.gpus_per_node, "between": cluster.num_nodes}
    links = {"inside": cluster.inside, "between": cluster.between}
    return _cost(
        [
            _phase(name, ALGORITHMS, size, ranks[where], links[where])
            for name, size, where in plans[collective]
        ]
    )


def _phase(
    collective: str, algorithms: tuple[str, ...], num_bytes: float, num_ranks: int, link: Link
) -> Phase:
    """The cheapest of the algorithms."""
    tried = [
        Phase(collective, name, num_ranks, link, traffic(collective, name, num_bytes, num_ranks))
        for name in algorithms
    ]
    return min(tried, key=lambda phase: phase.seconds)


def _cost(phases: list[Phase]) -> CollectiveCost:
    return CollectiveCost(tuple(phase for phase in phases if phase.num_ranks > 1))


def _slower(cluster: Cluster) -> Link:
    """The link that keeps a flat step waiting: the worse in both latency and bandwidth."""
    return Link(
        max(cluster.inside.latency_s, cluster.between.latency_s),
        min(cluster.inside.bytes_per_s, cluster.between.bytes_per_s),
    )
