"""Steps and bytes of five collectives among N equal ranks, by ring and by tree.

How it works: an algorithm is a sequence of steps; in each, every rank sends at most one message.
A step costs one latency and its largest message. For S bytes and N ranks:

                    steps                   bytes on the path
                    ring      tree          ring              tree
    all-reduce      2 (N-1)   2 log2 N      2 (N-1)/N S       2 (N-1)/N S
    reduce-scatter  N-1       log2 N        (N-1)/N S         (N-1)/N S
    all-gather      N-1       log2 N        (N-1)/N S         (N-1)/N S
    broadcast       2 (N-1)   log2 N        2 (N-1)/N S       log2 N S
    all-to-all      N-1       log2 N        (N-1)/N S         about log2 N / 2 S

log2 is rounded up. S is the whole tensor: what an all-gather ends with, what a rank of an
all-to-all starts with. `utils.simulate.messages` plays each algorithm message by message; the
tests compare every entry with that. The same figures are in gloo's docs/algorithms.md (ring and
halving-doubling all-reduce), which cites Thakur, Rabenseifner and Gropp 2005; the paper itself and
Bruck's variant for any N are recalled, unverified.

Left out: the time to add numbers up, trees that keep both directions of a link busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from utils.simulate.links import Link

COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "broadcast", "all-to-all")
ALGORITHMS = ("ring", "tree")


@dataclass(frozen=True)
class Traffic:
    """What one collective moves; all figures are of the busiest rank or the largest message."""

    num_steps: int
    path_bytes: float  # the largest message of each step, added up: this is what takes time
    sent_bytes: float  # by the rank that sends most: this is what a ledger counts

    def seconds(self, link: Link) -> float:
        """Time over one link, the alpha-beta model."""
        return link.seconds(self.path_bytes, self.num_steps)


NO_TRAFFIC = Traffic(0, 0.0, 0.0)


def traffic(collective: str, algorithm: str, num_bytes: float, num_ranks: int) -> Traffic:
    """Steps and bytes of a collective on `num_bytes`; one rank alone sends nothing.

    "ring" means for a broadcast a chain that passes N chunks on, and for an all-to-all that step k
    sends straight to the rank k further on. Raises ValueError for an unknown name or a size
    below 0.
    """
    if collective not in COLLECTIVES:
        raise ValueError(f"There is no collective {collective!r}; take {', '.join(COLLECTIVES)}.")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"There is no algorithm {algorithm!r}; take {', '.join(ALGORITHMS)}.")
    if num_ranks < 1 or num_bytes < 0:
        raise ValueError(
            f"A collective needs at least 1 rank and 0 bytes, not {num_ranks} and {num_bytes}."
        )
    if num_ranks == 1:
        return NO_TRAFFIC
    steps, path, sent = _per_byte(collective, algorithm, num_ranks)
    return Traffic(steps, path * num_bytes, sent * num_bytes)


@lru_cache(maxsize=1024)
def _per_byte(collective: str, algorithm: str, ranks: int) -> tuple[int, float, float]:
    """(steps, path, sent), the latter two per byte of the tensor."""
    hops = ranks - 1 if algorithm == "ring" else (ranks - 1).bit_length()
    others = (ranks - 1) / ranks  # a rank has 1/N already
    if collective == "all-reduce":
        return 2 * hops, 2 * others, 2 * others
    if collective in ("reduce-scatter", "all-gather"):
        return hops, others, others
    if collective == "broadcast":
        if algorithm == "ring":
            return 2 * hops, 2 * others, 1.0
        return hops, float(hops), float(hops)
    if algorithm == "ring":
        return hops, others, others
    # A block for the rank j further on travels once for each 1 among the binary digits of j.
    forwarded = sum(distance.bit_count() for distance in range(ranks)) / ranks
    return hops, forwarded, forwarded
