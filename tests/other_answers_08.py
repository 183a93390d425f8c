"""Other right answers to lab 08. They travel to the ranks by value, each with what it needs."""

from fractions import Fraction
from math import ceil

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from utils.techniques.ring import ring_all_gather, ring_reduce_scatter
from utils.techniques.sharding import group_of_two_levels


def in_hooks(units, losses, optimizer):
    """Hooks add up; reduced and freed from the last unit to the first."""
    sums, handles = {}, []

    def add(parameter):
        gradient = parameter.grad.float() / len(losses)
        sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
        parameter.grad = None

    for unit in reversed(units):
        unit.gather()
        handles += [p.register_post_accumulate_grad_hook(add) for p in unit.parameters]
    for loss in losses:
        loss().backward()
    for handle in handles:
        handle.remove()
    for unit in reversed(units):
        unit.reduce([sums[p] for p in unit.parameters])
        unit.free()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)


def loss_divided(units, losses, optimizer):
    """By a power of two, so that bf16 rounds nothing; by autograd.grad, without .grad."""
    for unit in units:
        unit.gather()
    parameters = [p for unit in units for p in unit.parameters]
    sums = [torch.zeros(p.shape) for p in parameters]
    for loss in losses:
        for total, gradient in zip(sums, torch.autograd.grad(loss() / len(losses), parameters),
                                   strict=True):  # fmt: skip
            total.add_(gradient)
    for unit in units:
        unit.free()
        unit.reduce([sums.pop(0) for _ in unit.parameters])
    optimizer.step()
    optimizer.zero_grad()


def by_mesh(rank, world_size, gpus_per_node):
    """torch's own groups of a grid; the shard's all-reduce written as two halves of a ring."""
    mesh = init_device_mesh("cpu", (world_size // gpus_per_node, gpus_per_node))
    replicas, sharing = mesh.get_group(0), mesh.get_group(1)
    node, place = divmod(rank, gpus_per_node)
    num_nodes = world_size // gpus_per_node

    def gather(flat_P, shard_S):
        parts = list(flat_P.chunk(gpus_per_node))
        dist.all_gather(parts, shard_S, group=sharing)

    def mean(shard_S, flat_P):
        ring_reduce_scatter(shard_S, flat_P / world_size, place, gpus_per_node, sharing)
        part = torch.empty(shard_S.numel() // num_nodes)
        ring_reduce_scatter(part, shard_S.clone(), node, num_nodes, replicas)
        ring_all_gather(shard_S, part, node, num_nodes, replicas)

    return gather, mean


def by_our_groups(rank, world_size, gpus_per_node):
    """The course's groups, with the ranks' places asked of torch."""
    sharing, replicas = group_of_two_levels(rank, world_size, gpus_per_node)

    def gather(flat_P, shard_S):
        ring_all_gather(flat_P, shard_S, dist.get_rank(sharing), gpus_per_node, sharing)

    def mean(shard_S, flat_P):
        place = dist.get_group_rank(sharing, rank)
        ring_reduce_scatter(shard_S, flat_P, place, gpus_per_node, sharing)
        shard_S /= gpus_per_node
        dist.all_reduce(shard_S, group=replicas)
        shard_S /= dist.get_world_size(replicas)

    return [gather, mean]


def in_fractions(job):
    """Exact numbers, seconds of each message and each compute."""
    num_gpus = next((n for n in range(1, 4097) if _fits(job, n)), None)
    if num_gpus is None:
        return None
    sent = (num_gpus - 1) * ceil(Fraction(job.layer_values, num_gpus))
    byte_s, flop_s = 8 / Fraction(job.link_bits_per_s), 1 / Fraction(job.flops_per_s)
    pairs = [  # (messages, compute for one token)
        (2 * sent * byte_s, 2 * job.layer_values * flop_s),
        ((2 + job.gradient_bytes) * sent * byte_s, 4 * job.layer_values * flop_s),
    ]
    tokens = max(ceil(message / one) for message, one in pairs)
    late_s = sum(max(0, message - job.num_tokens * one) for message, one in pairs)
    usd = late_s * job.num_layers * num_gpus * Fraction(job.usd_per_hour) / 3600
    return [num_gpus, float(tokens), float(usd)]


def _fits(job, num_gpus):
    layer, root = (num_gpus * ceil(Fraction(values, num_gpus))
                   for values in (job.layer_values, job.root_values))  # fmt: skip
    shards = (layer * job.num_layers + root) // num_gpus
    whole = 2 * (root + layer + layer) + job.gradient_bytes * layer
    left = job.memory_bytes - job.activation_bytes * job.num_tokens
    return 16 * shards + whole <= left
