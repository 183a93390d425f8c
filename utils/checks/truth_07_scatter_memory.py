"""The truth of lab 07's leaving gradients: one process's shards, and the bytes that stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from utils.checks.truth_07_scatter import Paths, Step, inputs_BD, shard_values, trained
from utils.memory import MemoryMeter
from utils.techniques.ring import ring_reduce_scatter

WIDTH, NUM_LAYERS = 16, 10
LAYER_BYTES = 4 * WIDTH**2


def gradients_by_rank(step: Step, num_micro: int, num_ranks: int) -> list[dict[str, Tensor]]:
    """The gradients of micro-batch `num_micro` of each rank; zeros where a batch has none."""
    found = []
    for rank in range(num_ranks):
        model = Paths()
        model(inputs_BD(num_micro, rank), step.path(num_micro, rank)).backward()
        named = trained(model).items()
        found.append({n: 0 * p.detach() if p.grad is None else p.grad for n, p in named})
    return found


def shard_of(gradient: Tensor, rank: int, num_ranks: int) -> Tensor:
    """Flat, padded with zeros, and cut."""
    padding = torch.zeros(-gradient.numel() % num_ranks)
    return torch.cat([gradient.flatten(), padding]).chunk(num_ranks)[rank]


def kept_bytes(rank: int, world_size: int, answer: Callable) -> int:
    """What a backward of ten equal layers leaves besides weights and shards."""
    return _alive_bytes(rank, world_size, answer) - _alive_bytes(rank, world_size, None)


def _alive_bytes(rank: int, world_size: int, answer: Callable | None) -> int:
    """Live bytes at the end of backward; without an answer, the gradients are thrown away."""
    with MemoryMeter() as meter:
        layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(NUM_LAYERS)]
        model = nn.Sequential(*layers)
        shards = [torch.zeros(shard_values(p, world_size)) for p in model.parameters()]
        scatter = partial(ring_reduce_scatter, rank=rank, world_size=world_size)
        finish = answer(model, list(shards), world_size, scatter) if answer else model.zero_grad
        model(torch.ones(2, WIDTH)).square().sum().backward()
        if answer is None:
            finish()
        meter.mark("end of backward")
        finish()
        del model, layers
    return sum(meter.report().at_mark("end of backward").values())


def explanations(
    step: Step, name: str, rank: int, num_ranks: int
) -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """This rank's true shard of a step, and (mistake, the shard that it leads to)."""
    by_micro = [gradients_by_rank(step, k, num_ranks) for k in range(len(step.micro))]
    means = [torch.stack([each[name] for each in by_rank]).mean(0) for by_rank in by_micro]
    total, num_micro = torch.stack(means).sum(0), len(means)
    own = torch.stack([by_rank[rank][name] for by_rank in by_micro]).sum(0)
    cut = partial(shard_of, num_ranks=num_ranks)
    mine = cut(total, rank)
    turned = cut(total.T, rank) if total.dim() == 2 else mine
    nothing = "nothing of the other ranks has arrived: keep what scatter leaves in its shard_S"
    return mine, [
        ("gradients are summed, not averaged: divide by world_size", num_ranks * mine),
        ("divided by world_size twice", mine / num_ranks),
        ("divided by the number of micro-batches, which add up here", mine / num_micro),
        ("only the last micro-batch counts: add to shards[k], do not overwrite it",
         cut(means[-1], rank)),
        ("only the first micro-batch counts: finish() makes all ready for the next backward",
         cut(means[0], rank)),
        ("nothing has been added to the shard: shards[k] += mean_S, in place", 0 * mine),
        (nothing, cut(own, rank)),
        (nothing, cut(own, rank) / num_ranks),
        ("the gradient is transposed: flatten it row by row", turned),
        *(("this is another rank's shard", cut(total, r)) for r in range(num_ranks) if r != rank),
    ]  # fmt: skip


