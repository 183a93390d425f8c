"""Collectives written from send and receive: three all-reduces, and the ring's two halves.

How it works: rank r has two neighbours, r - 1 and r + 1 modulo the world size. In each hop every
rank sends to the right while it receives from the left. All three all-reduces end with the same sum
on every rank; what differs is what each rank sends, in units of the tensor, for N ranks:

    gather to one, then back     rank 0 sends N - 1, the others 1
    whole tensor round the ring  N - 1
    chunked ring                 2 (N - 1) / N, and no less is possible

The chunked ring is a reduce-scatter (N - 1 hops of one chunk, added up on the way) and an
all-gather (N - 1 hops of one finished chunk); each is useful alone. gloo's own reduce-scatter is an
all-reduce of which each rank keeps a slice, so later lessons use `ring_reduce_scatter`.

Left out: trees, which need fewer hops for small tensors, and knowledge of who is near to whom.
Shape suffixes: P values of a flat tensor, S values of one rank's shard, P = N x S.
"""

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup | None


def exchange(
    send: Tensor, receive: Tensor, rank: int, world_size: int, group: Group = None
) -> None:
    """Send to the right neighbour while receiving from the left one; returns when both are done."""
    right, left = (rank + 1) % world_size, (rank - 1) % world_size
    operations = [
        dist.P2POp(dist.isend, send, group=group, group_peer=right),
        dist.P2POp(dist.irecv, receive, group=group, group_peer=left),
    ]
    for work in dist.batch_isend_irecv(operations):
        work.wait()


def gather_all_reduce(
    tensor: Tensor, rank: int, world_size: int, group: Group = None
) -> None:
    """Sum in place: everyone sends to rank 0, which adds up and sends the sum back."""
    if rank > 0:
        dist.send(tensor, group=group, group_dst=0)
        dist.recv(tensor, group=group, group_src=0)
        return
    received = torch.empty_like(tensor)
    for other in range(1, world_size):
        dist.recv(received, group=group, group_src=other)
        tensor += received
    for other in range(1, world_size):
        dist.send(tensor, group=group, group_dst=other)


def whole_ring_all_reduce(
    tensor: Tensor, rank: int, world_size: int, group: Group = None
) -> None:
    """Sum in place: every rank's tensor travels once round the ring, whole."""
    travelling, received = tensor.clone(), torch.empty_like(tensor)
    for _ in range(world_size - 1):
        exchange(travelling, received, rank, world_size, group)
        tensor += received
        travelling, received = received, travelling


def chunked_ring_all_reduce(
    tensor: Tensor, rank: int, world_size: int, group: Group = None
) -> None:
    """Sum in place: one chunk a hop, summed on the first way round, handed out on the second.

    Any size works; the chunks differ by at most one value. The tensor must be contiguous.
    """
    chunks = list(tensor.view(-1).tensor_split(world_size))
    received = torch.empty_like(chunks[0])  # the first chunk is never the shorter one
    for hop in range(world_size - 1):
        sent, arriving = (rank - hop) % world_size, (rank - hop - 1) % world_size
        space = received[: chunks[arriving].numel()]
        exchange(chunks[sent], space, rank, world_size, group)
        chunks[arriving] += space
    for hop in range(world_size - 1):
        sent, arriving = (rank - hop + 1) % world_size, (rank - hop) % world_size
        exchange(chunks[sent], chunks[arriving], rank, world_size, group)


def ring_reduce_scatter(
    shard_S: Tensor, flat_P: Tensor, rank: int, world_size: int, group: Group = None
) -> None:
    """shard_S becomes rank r's part of the sum of all ranks' flat_P, which keeps its values.

    Sends (N - 1) / N of flat_P. Raises ValueError unless flat_P has N times as many values.
    """
    chunks = _chunks(flat_P, shard_S, world_size)
    travelling, received = torch.empty_like(shard_S), torch.empty_like(shard_S)
    travelling.copy_(chunks[(rank - 1) % world_size])
    for hop in range(world_size - 1):
        exchange(travelling, received, rank, world_size, group)
        received += chunks[(rank - hop - 2) % world_size]
        travelling, received = received, travelling
    shard_S.copy_(travelling)


def ring_all_gather(
    flat_P: Tensor, shard_S: Tensor, rank: int, world_size: int, group: Group = None
) -> None:
    """flat_P becomes all ranks' shards, one after the other. Sends (N - 1) / N of flat_P.

    Raises ValueError unless flat_P has N times as many values as shard_S.
    """
    chunks = _chunks(flat_P, shard_S, world_size)
    chunks[rank].copy_(shard_S)
    for hop in range(world_size - 1):
        sent, arriving = (rank - hop) % world_size, (rank - hop - 1) % world_size
        exchange(chunks[sent], chunks[arriving], rank, world_size, group)


def _chunks(flat_P: Tensor, shard_S: Tensor, world_size: int) -> tuple[Tensor, ...]:
    if flat_P.numel() != world_size * shard_S.numel():
        raise ValueError(
            f"{flat_P.numel():,} values do not make {world_size} shards of {shard_S.numel():,}: "
            "pad the flat tensor to a multiple of the world size."
        )
    return flat_P.chunk(world_size)
