"""Links and clusters: what a message costs, and who is near to whom.

How it works: a message of b bytes takes `latency_s` + b / `bytes_per_s`, the alpha-beta model. A
cluster has nodes of equal size; GPUs of one node talk over `inside`, GPUs of different nodes over
`between`, of which each GPU has one of its own. Both ways at once cost nothing extra.

`LINKS` holds published rates of one direction. What the cited pages do not give is an assumption
and says so. Left out: contention in switches, and the share of a rate that software reaches
(`Link.at_share`: ml-engineering network/README at 0030e63 says to expect about 80 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Link:
    """Seconds before the first byte arrives, bytes per second from then on, in one direction."""

    latency_s: float
    bytes_per_s: float  # math.inf is a link that costs its latency only
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.latency_s < math.inf:
            raise ValueError(f"A link's latency is 0 seconds or more, not {self.latency_s}.")
        if not self.bytes_per_s > 0:
            raise ValueError(f"A link carries more than 0 bytes a second, not {self.bytes_per_s}.")

    def seconds(self, num_bytes: float, num_messages: int = 1) -> float:
        """Time for so many bytes in so many messages, one after the other."""
        return num_messages * self.latency_s + num_bytes / self.bytes_per_s

    def at_share(self, share: float) -> Link:
        """The same link at a share of its bandwidth, e.g. 0.8 for what software reaches."""
        if not 0 < share <= 1:
            raise ValueError(f"The share of a bandwidth lies in (0, 1], not {share}.")
        return replace(self, bytes_per_s=share * self.bytes_per_s)


@dataclass(frozen=True)
class Cluster:
    """`num_nodes` nodes of `gpus_per_node` GPUs each."""

    num_nodes: int
    gpus_per_node: int
    inside: Link
    between: Link

    def __post_init__(self) -> None:
        for name in ("num_nodes", "gpus_per_node"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")

    @property
    def num_gpus(self) -> int:
        """All GPUs of all nodes."""
        return self.num_nodes * self.gpus_per_node


_RATES = "ml-engineering network/README at 0030e63"
_HOPS = "one hop of a ring in NCCL's own cost table, src/graph/tuning.cc at 01afd20 (Simple)"
_NVLINK, _PCIE, _NETWORK = 3.4e-6, 5.7e-6, 9.6e-6

LINKS: dict[str, Link] = {
    "NVLink 2 (V100)": Link(_NVLINK, 150e9, f"{_RATES}; {_HOPS}"),
    "NVLink 3 (A100)": Link(_NVLINK, 300e9, f"{_RATES}; {_HOPS}"),
    "NVLink 4 (H100)": Link(_NVLINK, 450e9, f"{_RATES}; {_HOPS}"),
    "NVLink 5 (B200)": Link(_NVLINK, 900e9, f"{_RATES}; {_HOPS}"),
    "PCIe 4 x16": Link(_PCIE, 31e9, f"{_RATES}; {_HOPS}"),
    "PCIe 5 x16": Link(_PCIE, 63e9, f"{_RATES}; {_HOPS}"),
    # An H100 node has eight 400 Gbit/s ports, 400 GB/s in all: 50 for each GPU.
    "InfiniBand 400 Gbit/s": Link(_NETWORK, 50e9, f"{_RATES}; {_HOPS}"),
    "Ethernet 25 Gbit/s": Link(50e-6, 3.125e9, "assumption: a latency of 50 microseconds"),
}


def cluster_of(
    num_gpus: int,
    inside: Link = LINKS["NVLink 4 (H100)"],
    between: Link = LINKS["InfiniBand 400 Gbit/s"],
    gpus_per_node: int = 8,
) -> Cluster:
    """Full nodes of `gpus_per_node`, or one smaller node; ValueError for a node filled in part."""
    if num_gpus <= gpus_per_node:
        return Cluster(1, num_gpus, inside, between)
    if num_gpus % gpus_per_node:
        raise ValueError(
            f"{num_gpus} GPUs do not fill nodes of {gpus_per_node}; take a multiple of "
            f"{gpus_per_node}, or at most {gpus_per_node}."
        )
    return Cluster(num_gpus // gpus_per_node, gpus_per_node, inside, between)
