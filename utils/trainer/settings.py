"""What one run of the trainer is asked to do, checked before anything starts.

How it works: `RunSettings` holds the recipe, the model's config and everything else that shapes the
losses or the log. `identity` is the part that a resumed run must have in common with the run that
it goes on with: the same number of steps and rates, because the schedule of the learning rate
depends on them, and the same sequences a step, on however many ranks.

Left out: dropout, whose random state would have to be saved on every rank.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.config import GPTConfig
from utils.recipe import WHOLE_WEIGHTS, TrainingRecipe
from utils.train import TrainingConfig

VOCABULARY = 256  # a byte is a token
NUM_SEEDS = 2**63  # torch's generators take these


class TrainerError(RuntimeError):
    """What is wrong and what to do, in one sentence that is shown without a traceback."""


@dataclass(frozen=True)
class RunSettings:
    """One run; raises TrainerError for what cannot be."""

    folder: Path
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    config: GPTConfig = field(default_factory=GPTConfig)
    text: str | None = None  # a file or folder; None: the Python standard library's sources
    steps: int = 200
    learning_rate: float = TrainingConfig.learning_rate
    warmup_steps: int = TrainingConfig.warmup_steps
    weight_decay: float = TrainingConfig.weight_decay
    max_gradient_norm: float = TrainingConfig.max_gradient_norm
    seed: int = 0
    save_every: int = 0  # steps; 0: only at the end
    validate_every: int = 0  # steps; 0: only at the end
    resume: bool = False
    usd_per_gpu_hour: float | None = None
    chip: str | None = None
    prediction: dict[str, Any] | None = None
    measures_memory: bool = True

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("warmup_steps", 1), ("save_every", 0),
                            ("validate_every", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise TrainerError(
                    f"{_flag(name)} must be at least {least}, not {getattr(self, name)}."
                )
        for name, least in (("learning_rate", 0.0), ("max_gradient_norm", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > least):
                raise TrainerError(f"{_flag(name)} must be a positive number, not {value}.")
        for name in ("weight_decay", "usd_per_gpu_hour"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise TrainerError(f"{_flag(name)} must be a number from 0 on, not {value}.")
        if not 0 <= self.seed < NUM_SEEDS:
            raise TrainerError(f"--seed must be at least 0 and below 2**63, not {self.seed}.")
        if self.config.vocab_size < VOCABULARY:
            raise TrainerError(
                f"A byte needs a vocabulary of {VOCABULARY}, and the model's is "
                f"{self.config.vocab_size}: choose another --preset or --vocab-size."
            )
        if self.config.dropout:
            raise TrainerError("The trainer has no dropout: take a config with dropout=0.")

    @property
    def schedule(self) -> TrainingConfig:
        """The same as `utils.train.train` takes it."""
        return TrainingConfig(
            self.recipe.sequences_per_step, self.config.context_length, self.learning_rate,
            self.warmup_steps, self.weight_decay, self.max_gradient_norm, seed=self.seed,
        )  # fmt: skip

    @property
    def tokens_per_step(self) -> int:
        """Of all ranks together."""
        return self.recipe.sequences_per_step * self.config.context_length

    def logged(self) -> dict[str, Any]:
        """What the log's start line says beside recipe, config and prediction."""
        names = ("text", "steps", "learning_rate", "warmup_steps", "weight_decay",
                 "max_gradient_norm", "seed", "save_every", "validate_every")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def identity(self, text_sha256: str) -> dict[str, Any]:
        """What shapes the losses; one process and DDP hold the same, so either takes the other."""
        recipe, logged = asdict(self.recipe), self.logged()
        method = "whole weights" if self.recipe.method in WHOLE_WEIGHTS else self.recipe.method
        kept = ("steps", "learning_rate", "warmup_steps", "weight_decay", "max_gradient_norm")
        return {
            "method": method,
            **{name: recipe[name] for name in ("library", "precision", "attention")},
            "checkpointing": recipe["checkpointing"],
            "sequences per step": self.recipe.sequences_per_step,
            **{name.replace("_", " "): value for name, value in asdict(self.config).items()},
            **{name.replace("_", " "): logged[name] for name in (*kept, "seed")},
            "text's checksum": text_sha256[:12],
        }


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
