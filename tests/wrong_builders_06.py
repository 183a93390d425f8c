"""Wrong answers to lab 06: the solution with some of its code changed, and whole functions.

Functions of this file travel to the ranks by value, so it imports nothing of its neighbours that
they use.
"""

import torch
import torch.distributed as dist

from tests.lab_source import make_mutant, solution_functions
from utils.techniques import ring

LAB = "lab_06_data_parallel"
ANSWERS = {
    "06.1": "mean_in_few_hops",
    "06.2": "best_buckets",
    "06.3": "overlap_gradients",
    "06.4": "step_on_all_tokens",
    "06.5": "make_bf16_mean",
}
right = solution_functions(LAB)
mutant = make_mutant(LAB, ANSWERS)


def flattened(all_reduce):
    """An all-reduce of the lesson, on a list of tensors."""

    def answer(tensors, rank, world_size):
        flat_P = torch.cat([tensor.reshape(-1) for tensor in tensors])
        all_reduce(flat_P, rank, world_size)
        flat_P /= world_size
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, part in zip(tensors, flat_P.split(sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    return answer


def whole_swaps(flat_P, rank, world_size):
    distance = 1
    while distance < world_size:
        received = torch.empty_like(flat_P)
        swap_whole(flat_P, received, rank ^ distance)
        flat_P += received
        distance *= 2


def swap_whole(send, receive, partner):
    pair = dist.P2POp(dist.isend, send, partner), dist.P2POp(dist.irecv, receive, partner)
    for work in dist.batch_isend_irecv(list(pair)):
        work.wait()


def by_library(flat_P, rank, world_size):
    dist.all_reduce(flat_P)


gathered = flattened(ring.gather_all_reduce)
round_whole = flattened(ring.whole_ring_all_reduce)
lessons_ring = flattened(ring.chunked_ring_all_reduce)
doubled = flattened(whole_swaps)
library = flattened(by_library)


def one_by_one(mean):
    def answer(tensors, rank, world_size):
        for tensor in tensors:
            mean([tensor], rank, world_size)

    return answer


def zeros(tensors, rank, world_size):
    for tensor in tensors:
        tensor.zero_()


def gathered_errors(num_values, rank, world_size):
    """Everybody's rounded gradient to everybody, averaged and rounded everywhere."""
    lost_P, lost_back_P = torch.zeros(num_values), torch.zeros(num_values)

    def rounded(values, lost):
        wanted = values + lost
        sent = wanted.bfloat16()
        lost.copy_(wanted - sent.float())
        return sent

    def mean_(gradient_P):
        parts = [torch.empty(num_values, dtype=torch.bfloat16) for _ in range(world_size)]
        dist.all_gather(parts, rounded(gradient_P, lost_P))
        gradient_P.copy_(rounded(torch.stack(parts).float().mean(0), lost_back_P))

    return mean_


def summed_in_bf16(num_values, rank, world_size):
    lost_P = torch.zeros(num_values)

    def mean_(gradient_P):
        wanted = gradient_P + lost_P
        sent = wanted.bfloat16()
        lost_P.copy_(wanted - sent.float())
        dist.all_reduce(sent)
        gradient_P.copy_(sent.float() / world_size)

    return mean_
