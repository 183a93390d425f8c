"""The training loop of every recipe: the rates, a step on this rank's part, what is told of it.

How it works: all ranks make the same global batch and take their parts of it, so the losses are
those of one process. The rate follows `TrainingConfig.rate_at`, as in `utils.train.train`. The
clock runs during steps only, data and the mean of the losses included; saving, validation and
printing are not on it. A loss that is no number ends the run before anything is saved.

Left out: data that is read while the step before computes; a batch takes a thousandth of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist

from utils.corpus import Corpus
from utils.costs import mfu
from utils.peers import System
from utils.peers.harness import parts_of
from utils.timing import synchronise
from utils.trainer.folder import keep_last
from utils.trainer.group import Ranks
from utils.trainer.settings import RunSettings, TrainerError
from utils.trainer.speed import Peak, flops_per_step
from utils.trainer.state import optimizer_of, save_state, step_name
from utils.trainer.validate import validation_loss

Tell = Callable[..., None]


@dataclass
class Spent:
    """How far a run is, and what it took; `gpu_seconds` are those of all its ranks."""

    step: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    tokens: int = 0

    def usd(self, usd_per_gpu_hour: float | None) -> float | None:
        """What the steps cost; None without a price."""
        return None if usd_per_gpu_hour is None else self.gpu_seconds / 3600 * usd_per_gpu_hour


@dataclass
class Loop:
    """One run on one rank; `tell(event, **fields)` writes to the log on rank 0."""

    settings: RunSettings
    ranks: Ranks
    corpus: Corpus
    system: System
    peak: Peak
    tell: Tell
    spent: Spent
    saved_step: int | None = None

    def run(self) -> float:
        """All steps that are left; the validation loss. Raises TrainerError when it must stop."""
        settings, last = self.settings, self.settings.steps
        while self.spent.step < last:
            self._timed_step()
            if _is_due(self.spent.step, settings.save_every) and self.spent.step < last:
                self._save()
            if _is_due(self.spent.step, settings.validate_every) and self.spent.step < last:
                self._validate()
        if self.saved_step != last:
            self._save()
        return self._validate()

    def _timed_step(self) -> None:
        start_s = time.perf_counter()
        loss = self._step(self.spent.step)
        synchronise()
        step_s = time.perf_counter() - start_s
        if not math.isfinite(loss):
            elsewhere = "" if self.saved_step is None else " in another --folder"
            raise TrainerError(
                f"The loss of step {self.spent.step + 1} is {loss}, no number any more: lower the "
                f"learning rate and start again{elsewhere}. {self.last_good()}"
            )
        self.spent.step += 1
        self.spent.seconds += step_s
        self.spent.gpu_seconds += step_s * self.ranks.world_size
        self.spent.tokens += self.settings.tokens_per_step
        self._tell_step(loss, step_s)

    def _step(self, number: int) -> float:
        """Forward, backward, update; the mean loss of all ranks, before the update."""
        settings, ranks = self.settings, self.ranks
        self._set_rates(number)
        batch = self.corpus.batch(
            number, settings.recipe.sequences_per_step, settings.config.context_length,
            seed=settings.seed,
        )  # fmt: skip
        parts = parts_of(batch, ranks.rank, ranks.world_size, settings.recipe.micro_batches)
        total = torch.zeros(())
        for place, part in enumerate(parts):
            tokens_BT, targets_BT = (each.to(ranks.device) for each in part)
            loss = self.system.backward(tokens_BT, targets_BT, place == len(parts) - 1)
            total += loss.detach().float().cpu() / len(parts)
            del loss  # it holds the whole graph
        self.system.step()
        dist.all_reduce(total)
        return total.item() / ranks.world_size

    def _set_rates(self, number: int) -> None:
        schedule = self.settings.schedule
        for group in optimizer_of(self.system).param_groups:
            group["lr"] = schedule.rate_at(number, number / self.settings.steps)
            group["weight_decay"] = schedule.weight_decay

    def _tell_step(self, loss: float, step_s: float) -> None:
        settings, world_size = self.settings, self.ranks.world_size
        flops, _ = flops_per_step(settings.recipe, settings.config)
        self.tell(
            "step", step=self.spent.step, loss=loss, tokens=self.spent.tokens,
            seconds=self.spent.seconds, tokens_per_s=settings.tokens_per_step / step_s,
            mfu=mfu(flops, step_s, self.peak.flops_per_s * world_size),
            usd=self.spent.usd(settings.usd_per_gpu_hour),
        )  # fmt: skip

    def _save(self) -> None:
        try:
            place = save_state(
                self.system, self.settings.folder, self.spent.step, asdict(self.spent)
            )
        except TrainerError as error:
            raise TrainerError(
                f"Step {self.spent.step} could not be saved ({str(error).rstrip('.')}). "
                f"{self.last_good()}"
            ) from None
        self.saved_step = self.spent.step
        if self.ranks.is_first:
            keep_last(self.settings.folder)
        self.tell("saved", step=self.spent.step, folder=place.name)

    def _validate(self) -> float:
        shape = self.settings.recipe.batch_size, self.settings.config.context_length
        loss = validation_loss(self.system, self.corpus, self.ranks, *shape)
        self.tell("validation", step=self.spent.step, loss=loss)
        return loss

    def last_good(self) -> str:
        """Where a stopped run can go on."""
        if self.saved_step is None:
            return "Nothing had been saved before."
        return f"{step_name(self.saved_step)} is complete: --resume goes on from it."


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def end_of(loop: Loop, loss: float, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of the log's last line."""
    return {
        "step": loop.spent.step, "validation_loss": loss, "seconds": loop.spent.seconds,
        "usd": loop.spent.usd(loop.settings.usd_per_gpu_hour), "ranks": ranks,
    }  # fmt: skip
