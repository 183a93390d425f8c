"""Other right answers to lab 07's bill and sharded Adam: other data structures and messages."""

import math

import torch
import torch.distributed as dist

from utils.techniques.flat import FlatLayout
from utils.techniques.ring import ring_all_gather


def bill_by_layouts(units, stage, world_size, weight_bytes, num_micro=1):
    """With the lesson's layouts, category by category."""
    held, sent = 0.0, 0
    for sizes in units:
        layout = FlatLayout(tuple(map(str, sizes)), tuple((n,) for n in sizes), world_size)
        shard, whole = layout.shard_values, layout.padded_values
        master = (weight_bytes < 4) * 4 * shard
        held += 8 * shard + master + weight_bytes * (whole if stage < 3 else shard)
        held += weight_bytes * (layout.num_values if stage < 2 else shard)
        hops = world_size - 1
        gathers = 1 if stage < 3 else 2 * num_micro
        scatters = 1 if stage < 2 else num_micro
        sent += (gathers + scatters) * hops * shard * weight_bytes
    return [held, sent]


def bill_by_math(units, stage, world_size, weight_bytes, num_micro=1):
    shards = sum(math.ceil(sum(unit) / world_size) for unit in units)
    padded = shards * world_size
    held = shards * {4: 8, 2: 12}[weight_bytes]
    held += weight_bytes * (shards if stage == 3 else padded)
    held += weight_bytes * (sum(map(sum, units)) if stage == 1 else shards)
    factor = [2, 1 + num_micro, 3 * num_micro][stage - 1]
    return held, factor * weight_bytes * padded * (world_size - 1) // world_size


class Views:
    """The weights become views of one flat tensor, as in the lesson, and the shard is one too."""

    def __init__(self, weights, make_optimizer, rank, world_size):
        shapes = tuple(tuple(weight.shape) for weight in weights)
        self.layout = FlatLayout(tuple(map(str, range(len(shapes)))), shapes, world_size)
        self.weights, self.rank, self.world_size = weights, rank, world_size
        self.flat_P = self.layout.flatten([w.detach() for w in weights], torch.float32)
        for weight, view in zip(weights, self.layout.views(self.flat_P), strict=True):
            weight.data = view
        self.shard_S = self.layout.shard(self.flat_P, rank)
        self.optimizer = make_optimizer((self.shard_S,))

    def __call__(self):
        gradients = [weight.grad for weight in self.weights]
        flat_P = self.layout.flatten(gradients, torch.float32)
        self.shard_S.grad = self.layout.shard(flat_P, self.rank)
        self.optimizer.step()
        self.shard_S.grad = None
        ring_all_gather(self.flat_P, self.shard_S, self.rank, self.world_size)


def in_pieces(weights, make_optimizer, rank, world_size):
    """The optimizer gets this rank's piece of each weight; the owners broadcast theirs."""
    total = sum(weight.numel() for weight in weights)
    size = -(-total // world_size)

    def pieces(tensors, owner):
        found, start = [], 0
        for tensor in tensors:
            first, last = max(owner * size, start), min((owner + 1) * size, start + tensor.numel())
            if first < last:
                found.append(tensor.reshape(-1)[first - start : last - start])
            start += tensor.numel()
        return found

    mine = [piece.detach().clone() for piece in pieces([w.detach() for w in weights], rank)]
    optimizer = make_optimizer(mine) if mine else None

    @torch.no_grad()
    def step():
        for piece, gradient in zip(mine, pieces([w.grad for w in weights], rank), strict=True):
            piece.grad = gradient.clone()
        if optimizer is not None:
            optimizer.step()
        parts = []
        for owner in range(world_size):
            part = torch.empty(max(0, min(size, total - owner * size)))
            if owner == rank and mine:
                part.copy_(torch.cat(mine))
            if len(part):
                dist.broadcast(part, owner)
            parts.append(part)
        values = torch.cat(parts)
        for weight in weights:
            part, values = values[: weight.numel()], values[weight.numel() :]
            weight.copy_(part.reshape(weight.shape))

    return step


def with_parameter(weights, make_optimizer, rank, world_size):
    """The shard is a Parameter of its own; torch's all-gather of a list."""
    flat = torch.nn.utils.parameters_to_vector(w.detach().contiguous() for w in weights)
    size = math.ceil(len(flat) / world_size)
    flat = torch.nn.functional.pad(flat, (0, size * world_size - len(flat)))
    shard = torch.nn.Parameter(flat.view(world_size, size)[rank].clone())
    optimizer = make_optimizer([shard])
    del flat

    def step():
        gradient = torch.cat([weight.grad.reshape(-1) for weight in weights])
        gradient = torch.nn.functional.pad(gradient, (0, size * world_size - len(gradient)))
        shard.grad = gradient.view(world_size, size)[rank].clone()
        optimizer.step()
        optimizer.zero_grad()
        parts = [torch.empty(size) for _ in range(world_size)]
        dist.all_gather(parts, shard.detach())
        values, place = torch.cat(parts), 0
        with torch.no_grad():
            for weight in weights:
                weight.copy_(values[place : place + weight.numel()].view(weight.shape))
                place += weight.numel()

    return step
