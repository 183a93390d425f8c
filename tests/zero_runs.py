"""Trainings for the tests of ZeRO: one worker for the ranks, and the same run in one process.

The oracle adds the ranks' gradients in the order in which the ring does, so that equal means every
bit, on any number of ranks. It cuts nothing else: its optimizer has one tensor for each parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.peers import loss_of
from utils.ranks import TrafficLedger
from utils.techniques.zero import ZeroOne, ZeroThree, ZeroTwo

STAGES = {1: ZeroOne, 2: ZeroTwo, 3: ZeroThree}
# Odd on purpose: neither a block nor the rest divides by 2, 3 or 4.
CONFIG = GPTConfig(3, 2, 18, 7, 37, ff_dim=71)
NUM_STEPS, BATCH_SIZE = 3, 12
adam = partial(torch.optim.AdamW, lr=1e-2)


@dataclass(frozen=True)
class Case:
    """One training; `around(model)` is the context of forward and backward in each step."""

    config: GPTConfig = CONFIG
    low: bool = False
    num_micro: int = 1
    max_norm: float | None = None
    frozen: tuple[str, ...] = ()  # beginnings of parameters' names
    around: Callable[[nn.Module], AbstractContextManager] = lambda model: nullcontext()
    change: Callable[[nn.Module], None] = lambda model: None  # what the model becomes first

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.low else torch.float32

    def model(self, seed: int = 0) -> nn.Module:
        model = build_gpt(self.config, seed=seed)
        self.change(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen or ("-",)))
        return model

    def batches(self) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        shape = (NUM_STEPS, 2, BATCH_SIZE, self.config.context_length)
        return torch.randint(self.config.vocab_size, shape, generator=generator)


@dataclass(frozen=True)
class Run:
    """Losses are one part's; `sent` is what a rank sent in the last step."""

    losses: Tensor
    parameters: list[Tensor]
    norms: list[float]
    sent: int = 0


def train(rank: int, world_size: int, cases: list[Case], stages=(1, 2, 3)) -> list[dict[int, Run]]:
    """Each training in each of these stages, on this rank's part of every batch."""
    return [
        {stage: train_in(stage, rank, world_size, case) for stage in stages} for case in cases
    ]


def train_in(stage: int, rank: int, world_size: int, case: Case, group=None) -> Run:
    model = case.model(seed=rank)  # different weights: the start must make them equal
    zero = STAGES[stage](model, model.blocks, adam, rank, world_size, group, case.dtype)
    losses, norms = [], []
    torch.manual_seed(rank)
    for batch in case.batches():
        with TrafficLedger() as ledger:
            with case.around(model):
                losses.append(backward(model, batch, rank, world_size, case.num_micro))
            norms.append(zero.step(case.max_norm))
    norms = [norm.item() for norm in norms if norm is not None]
    return Run(torch.stack(losses), zero.whole_parameters(), norms, ledger.bytes_sent)


def backward(model: nn.Module, batch: Tensor, part: int, num_parts: int, num_micro: int) -> Tensor:
    """Gradients of this part's mean loss, micro-batch by micro-batch."""
    tokens_BT, targets_BT = (each.chunk(num_parts)[part] for each in batch)
    total = torch.zeros(())
    for pair in zip(tokens_BT.chunk(num_micro), targets_BT.chunk(num_micro), strict=True):
        loss = loss_of(model, *pair) / num_micro
        loss.backward()
        total += loss.detach()
    return total


def one_process(case: Case, num_parts: int) -> Run:
    """The same steps on one rank; losses of part 0."""
    model = case.model()
    masters = [nn.Parameter(p.detach().float().clone()) for p in trainable(model)]
    model.to(case.dtype)
    optimizer, losses, norms = adam(masters), [], []
    for batch in case.batches():
        parts = []
        for part in range(num_parts):
            with case.around(model):
                loss = backward(model, batch, part, num_parts, case.num_micro)
            parts.append([p.grad for p in trainable(model)])
            model.zero_grad()
            losses += [loss] if part == 0 else []
        for master, mean in zip(masters, ring_means(model, parts), strict=True):
            master.grad = mean.float()
        if case.max_norm is not None:
            norms.append(nn.utils.clip_grad_norm_(masters, case.max_norm).item())
        optimizer.step()
        for weight, master in zip(trainable(model), masters, strict=True):
            weight.data.copy_(master)
    exact = dict(zip(trainable(model), masters, strict=True))
    parameters = [exact.get(p, p).detach().float() for p in model.parameters()]
    return Run(torch.stack(losses), parameters, norms)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def ring_means(model: nn.Module, parts: list[list[Tensor | None]]) -> list[Tensor]:
    """Means of gradients over parts; each slice of a unit is added up from another rank on."""
    parameters, num_parts = trainable(model), len(parts)
    block_of = {id(p): i for i, block in enumerate(model.blocks) for p in block.parameters()}
    means: dict[int, Tensor] = {}
    for unit in {block_of.get(id(p), -1) for p in parameters}:
        places = [i for i, p in enumerate(parameters) if block_of.get(id(p), -1) == unit]
        sizes = [parameters[i].numel() for i in places]
        flat = [torch.cat([value_of(part[i], parameters[i]) for i in places]) for part in parts]
        flat = [nn.functional.pad(each / num_parts, (0, -sum(sizes) % num_parts)) for each in flat]
        summed = []
        for chunk in range(num_parts):
            pieces = [each.chunk(num_parts)[chunk] for each in flat]
            total = pieces[(chunk + 1) % num_parts]
            for hop in range(2, num_parts + 1):
                total = total + pieces[(chunk + hop) % num_parts]
            summed.append(total)
        whole = torch.cat(summed)[: sum(sizes)].split(sizes)
        means |= {i: each.view_as(parameters[i]) for i, each in zip(places, whole, strict=True)}
    return [means[i] for i in range(len(parameters))]


def value_of(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return (torch.zeros_like(parameter) if gradient is None else gradient).flatten()


def gap(mine: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference of a value; 0.0 only if every bit is the same."""
    pairs = list(zip(mine, others, strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return 0.0
    return max((a - b).abs().max().item() for a, b in pairs) or 1e-30


def mean_loss(runs: list[Run]) -> Tensor:
    return torch.stack([run.losses for run in runs]).mean(0)


def subgroup(rank: int, world_size: int, members: list[int]) -> dist.ProcessGroup | None:
    """The group of some ranks, made by all."""
    group = dist.new_group(members)
    return group if rank in members else None
