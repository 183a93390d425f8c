"""How many bytes gloo really writes for a collective: formulas that agree with the kernel exactly.

How it works: gloo moves tensors in messages. A message costs its sender the data and two envelopes
of 48 bytes (one announces it, one goes with it) and its receiver one (it says: ready). What is left
is which rank sends which messages, and that follows from the algorithms of gloo, found by
experiment with the kernel's counters on 1 to 5 ranks and sizes that do not divide evenly:

    all_reduce        a ring: N - 1 hops sum, N - 1 hops hand out; 2(N-1)/N of the tensor
    reduce_scatter    an all_reduce of the input, then a slice: 2(N-1)/N where (N-1)/N would do
    reduce            the first half of that ring, then everybody's part to the root
    all_gather        a ring of N - 1 hops with the input; (N-1)/N of the output
    broadcast         a tree: the root sends the tensor to log2(N) ranks, they send it on
    gather, scatter   each rank to the root, the root to each rank
    all_to_all        each rank to each other rank; (N-1)/N of the input
    send              the tensor

`Sent` is exact for each rank. Only the shares above are means over the ranks where ranks differ:
in reduce, broadcast, gather and scatter always, in the ring by a segment or two.
Left out: sparse tensors; NCCL, whose bytes no program can count (`textbook_bytes` is its estimate).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

ENVELOPE_BYTES = 48
MAX_SEGMENT_BYTES = 1024 * 1024


class Sent(NamedTuple):
    """What one rank writes: bytes of tensors, and bytes of the envelopes around them."""

    data_bytes: int = 0
    envelope_bytes: int = 0


def add(parts: Iterable[Sent]) -> Sent:
    """Several runs, one after the other."""
    parts = list(parts)
    return Sent(sum(part.data_bytes for part in parts), sum(part.envelope_bytes for part in parts))


def messages(sent: Iterable[int], received: Iterable[int]) -> Sent:
    """What a rank writes for messages of these sizes; an empty one is never sent by a ring."""
    sent = list(sent)
    return Sent(sum(sent), ENVELOPE_BYTES * (2 * len(sent) + len(list(received))))


class Segments(NamedTuple):
    """A ring cuts the tensor into N blocks of equally many segments; the last may be empty."""

    num_bytes: int
    segment_bytes: int
    per_block: int

    @staticmethod
    def of(num_bytes: int, value_bytes: int, world_size: int) -> Segments:
        """At least two segments a block, so that one is summed while the next one travels."""
        largest = value_bytes * max(1, MAX_SEGMENT_BYTES // value_bytes)
        num_segments = max(_divided_up(num_bytes, largest), 2 * world_size)
        per_block = _divided_up(num_segments, world_size)
        num_values = _divided_up(_divided_up(num_bytes, per_block * world_size), value_bytes)
        return Segments(num_bytes, num_values * value_bytes, per_block)

    def sizes(self, block: int) -> list[int]:
        """Bytes of the segments of a block that are not empty."""
        first = block * self.per_block
        starts = [(first + i) * self.segment_bytes for i in range(self.per_block)]
        cut = [min(self.segment_bytes, self.num_bytes - start) for start in starts]
        return [size for size in cut if size > 0]


def all_reduce(num_bytes: int, value_bytes: int, rank: int, world_size: int) -> Sent:
    """The two rounds of the ring: sum, then hand out."""
    segments = Segments.of(num_bytes, value_bytes, world_size)
    handed_on = [(rank + hop) % world_size for hop in range(world_size)]
    hand_out = messages(_sizes(segments, handed_on[:-1]), _sizes(segments, handed_on[1:]))
    return add([_sum_round(segments, rank, world_size), hand_out])


def reduce(num_bytes: int, value_bytes: int, rank: int, world_size: int, root: int) -> Sent:
    """The first round of the ring, then each rank's summed block in one message to the root."""
    segments = Segments.of(num_bytes, value_bytes, world_size)
    blocks = {r: sum(segments.sizes(r)) for r in range(world_size) if r != root}
    filled = {r: size for r, size in blocks.items() if size}
    if rank == root:
        last = messages([], filled.values())
    else:
        last = messages([size for r, size in filled.items() if r == rank], [])
    return add([_sum_round(segments, rank, world_size), last])


def all_gather(num_bytes: int, world_size: int) -> Sent:
    """`num_bytes` is one rank's input; every block travels in two halves, one may be empty."""
    hops = (world_size - 1) * (num_bytes > 0)
    return Sent(hops * num_bytes, 2 * hops * 3 * ENVELOPE_BYTES)


def broadcast(num_bytes: int, rank: int, world_size: int, root: int) -> Sent:
    """The ranks that have the tensor double with each round."""
    place, distance, num_sent = (rank - root) % world_size, 1, 0
    while distance < world_size:
        num_sent += place < distance and place + distance < world_size
        distance *= 2
    return messages([num_bytes] * num_sent, [num_bytes] * (place > 0))


def gather(num_bytes: int, rank: int, world_size: int, root: int) -> Sent:
    """Each rank's input straight to the root."""
    if rank == root:
        return messages([], [num_bytes] * (world_size - 1))
    return messages([num_bytes], [])


def scatter(num_bytes: int, rank: int, world_size: int, root: int) -> Sent:
    """`num_bytes` is one rank's part."""
    if rank == root:
        return messages([num_bytes] * (world_size - 1), [])
    return messages([], [num_bytes])


def all_to_all(
    sent_bytes: Sequence[int], received_bytes: Sequence[int], rank: int, world_size: int
) -> Sent:
    """Bytes for each rank and from each rank, the rank itself included."""
    others = [other for other in range(world_size) if other != rank]
    return messages([sent_bytes[r] for r in others], [received_bytes[r] for r in others])


def barrier(world_size: int) -> Sent:
    """Empty messages in rounds of twice the distance."""
    rounds = (world_size - 1).bit_length()
    return messages([0] * rounds, [0] * rounds)


def monitored_barrier(rank: int, world_size: int) -> Sent:
    """Each rank and rank 0 send each other a whole number of 4 bytes."""
    partners = [4] * (1 if rank else world_size - 1)
    return messages(partners, partners)


_SHARES = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: (n - 1) / n,
    "reduce": lambda n: (n - 1) / n,
    "gather": lambda n: (n - 1) / n,
    "scatter": lambda n: (n - 1) / n,
    "send": lambda n: 1.0,
}


def textbook_bytes(kind: str, payload_bytes: int, world_size: int) -> float:
    """The least that a rank must send, as a mean over ranks, whatever the library.

    `payload_bytes`: the tensor that is reduced, broadcast or sent; of all_gather the output, of
    reduce_scatter and all_to_all the input, of gather and scatter all ranks' parts together.
    Source: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in
    MPICH" (2005). Anything else (recv, barrier) sends no data.
    """
    share = _SHARES.get(kind)
    return payload_bytes * share(world_size) if share else 0.0


def _sum_round(segments: Segments, rank: int, world_size: int) -> Sent:
    blocks = [(rank + 1 + hop) % world_size for hop in range(world_size)]
    return messages(_sizes(segments, blocks[:-1]), _sizes(segments, blocks[1:]))


def _sizes(segments: Segments, blocks: Iterable[int]) -> list[int]:
    return [size for block in blocks for size in segments.sizes(block)]


def _divided_up(count: int, by: int) -> int:
    return -(-count // by)
