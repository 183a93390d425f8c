"""What a rung of the ladder cost: bytes, FLOPs, seconds, tokens, loss, dollars.

How it works: a `RungResult` puts together what all ranks saw: bytes of the fullest, seconds of the
slowest, a value a round. Bytes and FLOPs are computed, the same everywhere; seconds, and what
follows from them, are measured, and so is the loss, since text and rounding differ between
machines. `row_of` and `result_of` turn a result into a recorded row and back.

Left out: how the figures are shown (`utils.ladder_report`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from utils.config import GPTConfig
from utils.costs import training_flops
from utils.experiments.ladder_ranks import RankReport, StepSeconds
from utils.experiments.ladder_rungs import Rung
from utils.predict_checkpoint import recomputed_flops
from utils.recipe import TrainingRecipe
from utils.techniques.segments import segments
from utils.timing import Comparison, Timing


@dataclass(frozen=True)
class RungResult:
    """One rung on one machine; if it did not run, `problem` says why and figures are 0 or NaN."""

    rung: Rung
    tokens_per_step: int = 0  # of all ranks
    flops_per_token: float = 0.0  # matrix products, those that checkpointing repeats included
    peak_bytes: int = 0  # on the fullest rank
    held: Mapping[str, int] = field(default_factory=dict)  # there, by category
    timing: Timing | None = None  # seconds of a step on the slowest rank, a value a round
    num_tokens: int = 0  # seen in training, the first round included
    loss: float = math.nan  # nats per token of the weights in fp32, on held-out text
    problem: str = ""

    @property
    def held_bytes(self) -> int:
        """Weights, gradients and optimizer state."""
        return sum(self.held.values())

    @property
    def step_s(self) -> float:
        """The median of the rounds; NaN without a run."""
        return self.timing.median_s if self.timing else math.nan

    @property
    def tokens_per_s(self) -> float:
        """Of all ranks together."""
        return self.tokens_per_step / self.step_s

    @property
    def num_updates(self) -> int:
        """Steps that the tokens were spent on."""
        return self.num_tokens // self.tokens_per_step if self.tokens_per_step else 0

    def usd_per_billion_tokens(self, usd_per_device_hour: float) -> float:
        """What 1e9 tokens cost at this price of one core (or GPU); every rank has one."""
        if not 0 <= usd_per_device_hour < math.inf:
            raise ValueError(
                f"A price is 0 dollars an hour or more, not {usd_per_device_hour!r}: give what "
                "one core, or one GPU, costs an hour."
            )
        device_hours = self.rung.recipe.num_ranks * 1e9 / self.tokens_per_s / 3600
        return device_hours * usd_per_device_hour


def step_flops(recipe: TrainingRecipe, config: GPTConfig) -> int:
    """Matrix-product FLOPs of one step of all ranks, with those that checkpointing repeats."""
    shape = (config, recipe.sequences_per_step, config.context_length)
    again = 0
    if recipe.checkpointing == "blocks":
        again = recomputed_flops(*shape, segments([1] * config.num_layers))
    return training_flops(*shape) + again


def slowest_steps(reports: Sequence[RankReport], number: int) -> list[StepSeconds]:
    """The step of one entry on its slowest rank, a value a round."""
    ranks = [each.seconds[number] for each in reports if each.seconds[number] is not None]
    return [max(steps, key=lambda step: step.total_s) for steps in zip(*ranks, strict=True)]


def per_token(results: Sequence[RungResult]) -> Comparison:
    """Device-seconds per token of each rung that ran, round by round: what the rent pays for."""
    ran = [each for each in results if each.timing]
    tokens = {each.rung.name: each.tokens_per_step / each.rung.recipe.num_ranks for each in ran}
    return Comparison({each.rung.name: each.timing for each in ran}).per(tokens)


def row_of(result: RungResult, config: GPTConfig) -> dict[str, Any]:
    """A recorded row, of what JSON can hold; None stands for NaN and for what did not run."""
    row = {
        "rung": result.rung.name,
        "recipe": asdict(result.rung.recipe),
        "config": asdict(config),
        **{name: getattr(result, name) for name in _PLAIN},
        "held": dict(result.held),
        "runs_s": list(result.timing.runs_s) if result.timing else None,
        "step_s": result.step_s,
        "tokens_per_s": result.tokens_per_s,
        "loss": result.loss,
    }
    return {name: None if value != value else value for name, value in row.items()}


def result_of(row: Mapping[str, Any]) -> RungResult:
    """The result that a recorded row came from."""
    runs_s, loss = row["runs_s"], row["loss"]
    return RungResult(
        Rung(row["rung"], TrainingRecipe(**row["recipe"])),
        **{name: row[name] for name in _PLAIN},
        held=row["held"],
        timing=Timing(tuple(runs_s)) if runs_s else None,
        loss=math.nan if loss is None else loss,
    )


_PLAIN = ("tokens_per_step", "flops_per_token", "peak_bytes", "num_tokens", "problem")
