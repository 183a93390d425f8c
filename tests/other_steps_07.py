"""Other right answers to lab 07: gradients that leave, a norm, another world size."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from utils.ranks.collectives import all_gather
from utils.techniques.zero_checkpoint import cut


class Leaving:
    """An object with a place in the list; divides after the sum; one buffer for all."""

    def __init__(self, model, shards, world_size, scatter):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.shards, self.world_size, self.scatter = shards, world_size, scatter
        self.buffer = torch.empty(max(map(Tensor.numel, shards)) * world_size)
        self.done, self.next = set(), len(self.parameters) - 1
        for k, parameter in enumerate(self.parameters):
            parameter.register_post_accumulate_grad_hook(lambda _, k=k: self.note(k))

    def note(self, place):
        self.done.add(place)
        while self.next in self.done:
            self.send(self.next)
            self.next -= 1

    def send(self, place):
        parameter, shard_S = self.parameters[place], self.shards[place]
        flat_P = self.buffer[: self.world_size * shard_S.numel()].zero_()
        if parameter.grad is not None:
            flat_P[: parameter.numel()].copy_(parameter.grad.reshape(-1))
            parameter.grad = None
        sum_S = torch.zeros(shard_S.numel())
        self.scatter(sum_S, flat_P)
        shard_S.add_(sum_S, alpha=1 / self.world_size)

    def __call__(self):
        for place in reversed(range(self.next + 1)):
            self.note(place)
        self.done, self.next = set(), len(self.parameters) - 1


def taken_at_once(model, shards, world_size, scatter):
    """The hook takes the gradient off the parameter at once, and lets it wait in a dict."""
    trained = [p for p in model.parameters() if p.requires_grad]
    waiting, left = {}, list(range(len(trained)))

    def send():
        place = left.pop()
        flat = waiting.pop(place).flatten()
        flat = torch.nn.functional.pad(flat, (0, -len(flat) % world_size)) / world_size
        mean_S = torch.empty(len(flat) // world_size)
        scatter(mean_S, flat)
        shards[place] += mean_S

    def hook(place):
        def on_gradient(parameter):
            waiting[place], parameter.grad = parameter.grad, None
            while left and left[-1] in waiting:
                send()

        return on_gradient

    def finish():
        while left:
            waiting.setdefault(left[-1], torch.zeros_like(trained[left[-1]]))
            send()
        left.extend(range(len(trained)))

    for place, parameter in enumerate(trained):
        parameter.register_post_accumulate_grad_hook(hook(place))
    return finish


def clip_in_numbers(shards, sizes, whole, rank, num_micro, max_norm):
    """Averages first; every rank sends its number to all; a share of `whole` from each."""
    num_ranks = dist.get_world_size()
    for gradient in [*shards, *whole]:
        gradient.div_(num_micro)
    norms = [torch.linalg.vector_norm(shard[: max(0, size - rank * len(shard))].float())
             for shard, size in zip(shards, sizes, strict=True)]  # fmt: skip
    squares = [norm.item() ** 2 for norm in norms]
    squares += [gradient.float().norm().item() ** 2 / num_ranks for gradient in whole]
    all_squares = torch.empty(num_ranks, dtype=torch.float64)
    all_gather(all_squares, torch.tensor([math.fsum(squares)], dtype=torch.float64))
    norm = math.sqrt(all_squares.sum().item())
    if norm > max_norm:
        for gradient in [*shards, *whole]:
            gradient.mul_(max_norm / norm)
    return norm


@torch.no_grad()
def clip_as_torch_does(shards, sizes, whole, rank, num_micro, max_norm):
    """Zeros in the padding; torch's small number in the denominator; whole ones on every rank."""
    for shard, size in zip(shards, sizes, strict=True):
        shard[max(0, size - rank * len(shard)) :] = 0
        shard /= num_micro
    for gradient in whole:
        gradient /= num_micro
    square = sum((shard.float().square().sum() for shard in shards), torch.zeros(()))
    dist.all_reduce(square)
    square += sum(gradient.float().square().sum() for gradient in whole)
    norm = square.sqrt()
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    for gradient in [*shards, *whole]:
        gradient.mul_(scale)
    return float(norm)


def reshard_by_value(open_file, sizes, num_files, rank, world_size):
    """Value by value, files when they are first met."""
    files = {}
    wanted = []
    for k, size in enumerate(sizes):
        old, new = math.ceil(size / num_files), math.ceil(size / world_size)
        places = [divmod(place, old) for place in range(rank * new, min(size, (rank + 1) * new))]
        wanted.append((k, new, places))
        for r, _ in places:
            if r not in files:
                files[r] = open_file(r)
    if not files:
        files[num_files - 1] = open_file(num_files - 1)
    any_file, result = next(iter(files.values())), []
    for k, new, places in wanted:
        state = {}
        for key, value in any_file[k].items():
            if value.dim() == 0:
                state[key] = float(value)
                continue
            values = [files[r][k][key][place].item() for r, place in places]
            state[key] = torch.tensor(values + [0.0] * (new - len(values)))
        result.append(state)
    return result


def reshard_with_cut(open_file, sizes, num_files, rank, world_size):
    """With the lesson's `cut`, on the files that overlap."""
    needed = set()
    for size in sizes:
        old, new = -(-size // num_files), -(-size // world_size)
        start, end = rank * new, min(size, rank * new + new)
        needed |= set(range(start // old, -(-end // old))) if start < end else set()
    files = {r: open_file(r) for r in sorted(needed or {0})}
    result = []
    for k, size in enumerate(sizes):
        new = -(-size // world_size)
        state = {}
        for key, first in next(iter(files.values()))[k].items():
            pieces = [(r * len(first), each[k][key]) for r, each in files.items()] if (
                first.dim()
            ) else []
            state[key] = cut(pieces, rank * new, new, size) if pieces else first.clone()
        result.append(state)
    return result
