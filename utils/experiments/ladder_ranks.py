"""What each rank does on the ladder: weigh every recipe, or train all of them in turn.

How it works: a recipe for one process runs on rank 0, while the others wait for it in a barrier,
asleep; a recipe for several ranks runs on all. So one launch holds every recipe, and round after
round each trains on the same sequences, in steps of its own size: all have then seen the same
tokens, and a slow moment of the machine hits all of them. The first round is not timed. What was
learnt is judged without the recipe: its weights, whole and in fp32, on text that no recipe saw.

Left out: what is compared with what (`utils.experiments.ladder`, `utils.planning.this_machine`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from utils.config import GPTConfig
from utils.experiments.fitting import give_back, survive
from utils.model import build_gpt, next_token_loss
from utils.peers.harness import METERED_BATCHES, SystemBytes, measure_system, parts_of
from utils.recipe import TrainingRecipe
from utils.timing import synchronise
from utils.trainer.systems import config_of, job_of, system_of, training_device

Entry = tuple[TrainingRecipe, GPTConfig]
Batch = tuple[Tensor, Tensor]  # tokens_BT, targets_BT
MIN_ROUNDS = 3  # timed ones, for quartiles


@dataclass(frozen=True)
class Schedule:
    """The sequences of every round, whoever trains on them, and when it is enough."""

    rounds: Sequence[Batch]
    held_out: Batch | None = None  # what the loss at the end is taken on
    learning_rate: float = 1e-3
    budget_s: float = 20.0  # once MIN_ROUNDS are timed, no round starts that would end later
    most_steps: int | None = None  # of an entry in a round; None: until the sequences are used up


@dataclass(frozen=True)
class StepSeconds:
    """One recipe on one rank: the mean of its steps in one round, and of their updates alone."""

    total_s: float
    update_s: float  # on a GPU it means nothing: the work is only queued


@dataclass(frozen=True)
class RankReport:
    """By entry: seconds of each timed round, None where the rank took no part; losses of rank 0."""

    seconds: list[list[StepSeconds] | None]
    losses: list[float | None]
    num_rounds: int  # the first one included


def weigh_entries(
    rank: int, world_size: int, entries: Sequence[Entry]
) -> list[SystemBytes | None]:
    """Bytes of each entry on this rank, by the memory meter; on a GPU the allocator's peak.

    None where the rank takes no part, or, with one rank only, where memory ran out.
    """
    return [_weigh(rank, world_size, *entry) for entry in entries]


def train_entries(
    rank: int, world_size: int, entries: Sequence[Entry], schedule: Schedule
) -> RankReport:
    """Train all entries in turn, round after round; every rank stops after the same round."""
    members = [_Member(rank, world_size, *entry, schedule) for entry in entries]
    rounds, start_s = [], time.perf_counter()
    for batch in schedule.rounds:
        rounds.append([member.train(batch) for member in members])
        if _is_late(len(rounds), time.perf_counter() - start_s, schedule.budget_s):
            break
    seconds = [
        None if member.system is None else [each[number] for each in rounds[1:]]
        for number, member in enumerate(members)
    ]
    losses = [member.loss(schedule.held_out) for member in members]
    return RankReport(seconds, losses, len(rounds))


class _Member:
    """One entry on this rank; its system is None where the recipe has no use for the rank."""

    def __init__(
        self, rank: int, world_size: int, recipe: TrainingRecipe, config: GPTConfig,
        schedule: Schedule,
    ) -> None:  # fmt: skip
        self.recipe, self.config = recipe, config_of(recipe, config)
        self.place, self.system = _place(recipe, rank, world_size), None
        self.most_steps = schedule.most_steps
        if rank < recipe.num_ranks:
            job = job_of(recipe, config, learning_rate=schedule.learning_rate)
            self.system = system_of(recipe)(build_gpt(job.config), *self.place, job)

    def train(self, batch: Batch) -> StepSeconds | None:
        """Steps on the sequences of one round."""
        dist.barrier()
        if self.system is None:
            return None
        size = self.recipe.sequences_per_step
        steps = list(zip(*(each.split(size) for each in batch), strict=True))[: self.most_steps]
        start_s = time.perf_counter()
        update_s = sum(map(self._step, steps))
        synchronise()
        total_s = time.perf_counter() - start_s
        return StepSeconds(total_s / len(steps), update_s / len(steps))

    def _step(self, batch: Batch) -> float:
        """One step; seconds of its update."""
        parts = parts_of(batch, *self.place, self.recipe.micro_batches)
        for number, part in enumerate(parts):
            self.system.backward(*part, number == len(parts) - 1)
        start_s = time.perf_counter()
        self.system.step()
        return time.perf_counter() - start_s

    @torch.no_grad()
    def loss(self, held_out: Batch | None) -> float | None:
        """Mean loss of the weights in fp32, in nats; all ranks of the recipe call it."""
        if self.system is None or held_out is None:
            return None
        values = self.system.whole_parameters()
        if self.place[0]:
            return None
        model, device = build_gpt(self.config), training_device(0)
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)
        model.to(device)
        pairs = zip(*(each.to(device).split(8) for each in held_out), strict=True)
        return float(torch.stack([next_token_loss(model, *pair) for pair in pairs]).mean())


def _weigh(
    rank: int, world_size: int, recipe: TrainingRecipe, config: GPTConfig
) -> SystemBytes | None:
    give_back()
    if rank >= recipe.num_ranks:
        for _ in METERED_BATCHES:
            dist.barrier()
        return None
    place = _place(recipe, rank, world_size)
    measure = partial(measure_system, *place, system_of(recipe), job_of(recipe, config))
    size = survive(measure) if world_size == 1 else measure()  # several would wait for each other
    if size is None or training_device(rank).type == "cpu":
        return size
    return replace(size, peak_bytes=torch.cuda.max_memory_allocated())


def _place(recipe: TrainingRecipe, rank: int, world_size: int) -> tuple[int, int]:
    """Rank and world size for the recipe's system: alone, a rank is the only one."""
    return (rank, world_size) if recipe.num_ranks > 1 else (0, 1)


def _is_late(num_rounds: int, elapsed_s: float, budget_s: float) -> bool:
    """Whether one more round would pass the budget on the slowest rank; all ranks agree."""
    slowest_s = torch.tensor(elapsed_s, device=training_device(dist.get_rank()))
    dist.all_reduce(slowest_s, dist.ReduceOp.MAX)
    is_over = slowest_s.item() * (num_rounds + 1) / num_rounds > budget_s
    return is_over and num_rounds > MIN_ROUNDS
