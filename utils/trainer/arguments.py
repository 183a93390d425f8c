"""The command line of `python -m utils.train`, and the way back from a config to its words.

How it works: the options of a recipe, of a model and of a run become one `RunSettings`; whatever is
wrong with them raises TrainerError with one sentence. The number of ranks is torchrun's: the
recipe gets it from there, and `--num-ranks` only says how many were meant.

Left out: settings files; a plan is one line that fits into a terminal or a job script.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

from utils.config import PRESETS, GPTConfig
from utils.recipe import (
    ATTENTIONS,
    CHECKPOINTINGS,
    LIBRARIES,
    METHODS,
    PRECISIONS,
    TrainingRecipe,
)
from utils.trainer.phrases import DEFAULT_PRESET, phrase
from utils.trainer.settings import RunSettings, TrainerError

SHAPES = ("num_layers", "num_heads", "model_dim", "context_length", "vocab_size", "ff_dim",
          "num_kv_heads")  # fmt: skip
CHOICES = {
    "precision": PRECISIONS, "attention": ATTENTIONS, "checkpointing": CHECKPOINTINGS,
    "method": METHODS, "library": LIBRARIES,
}  # fmt: skip
RUN_NUMBERS = {
    "steps": int, "learning_rate": float, "warmup_steps": int, "weight_decay": float,
    "max_gradient_norm": float, "seed": int, "save_every": int, "validate_every": int,
    "usd_per_gpu_hour": float,
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TrainerError(f"{message[:1].upper()}{message[1:]} (--help lists all options).")


def parse(words: Sequence[str] | None, world_size: int = 1) -> RunSettings:
    """The settings of a command line. Raises TrainerError, in one sentence, for a wrong one."""
    given = vars(_parser().parse_args(words))
    try:
        recipe, config = _recipe(given, world_size), _config(given)
        run = {name: given[name] for name in RUN_NUMBERS if given[name] is not None}
        return RunSettings(
            Path(given["folder"]), recipe, config, given["text"], **run, resume=given["resume"],
            chip=given["chip"], prediction=_prediction(given["prediction"]),
            measures_memory=not given["no_memory"],
        )  # fmt: skip
    except ValueError as error:
        raise TrainerError(str(error)) from None


def config_flags(config: GPTConfig) -> tuple[str, ...]:
    """The words that make this config; the preset that has most of it comes first."""

    def different(preset: GPTConfig) -> list[str]:
        names = (each.name for each in fields(config) if each.name not in ("attention", "dropout"))
        return [name for name in names if getattr(preset, name) != getattr(config, name)]

    name = min(PRESETS, key=lambda each: len(different(PRESETS[each])))
    words = ["--preset", name]
    for each in different(PRESETS[name]):
        value = getattr(config, each)
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{each.replace('_', '-')}")
        else:  # 0 stands for None, the config's own choice
            words += [f"--{each.replace('_', '-')}", str(value or 0)]
    return tuple(words)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m utils.train", allow_abbrev=False,
        description="Train the course's GPT on a text by a recipe, on one rank or under torchrun.",
    )  # fmt: skip

    def add(name: str, **options: Any) -> None:
        parser.add_argument(f"--{name.replace('_', '-')}", help=phrase(name), **options)

    add("folder", required=True)
    add("text")
    add("preset", default=DEFAULT_PRESET, metavar="|".join(PRESETS))
    for name in SHAPES:
        add(name, type=int)
    for name in ("bias", "tied_embeddings"):
        add(name, action=argparse.BooleanOptionalAction)
    for name, choices in CHOICES.items():
        add(name, default=getattr(TrainingRecipe, name), metavar="|".join(choices))
    for name in ("batch_size", "micro_batches", "num_ranks", "sequences_per_step"):
        add(name, type=int)
    for name, kind in RUN_NUMBERS.items():
        add(name, type=kind)
    for name in ("chip", "prediction"):
        add(name)
    for name in ("resume", "no_memory"):
        add(name, action="store_true")
    return parser


def _recipe(given: dict[str, Any], world_size: int) -> TrainingRecipe:
    meant = given["num_ranks"]
    if meant is not None and meant > 0 and meant != world_size:
        raise TrainerError(
            f"The recipe is for {meant} ranks, but {_are(world_size)} running: start it by "
            f"torchrun --standalone --local-addr localhost --nproc-per-node {meant} "
            "-m utils.train ..., or leave --num-ranks out."
        )
    names = (*CHOICES, "batch_size", "micro_batches")
    chosen = {name: given[name] for name in names if given[name] is not None}
    recipe = TrainingRecipe(**chosen, num_ranks=world_size if meant is None else meant)
    whole = given["sequences_per_step"]
    if whole is None:
        return recipe
    at_once = recipe.batch_size * world_size
    if whole < 1 or whole % at_once:
        raise TrainerError(
            f"{whole} sequences a step do not divide into {world_size} ranks of "
            f"{recipe.batch_size} at a time: take a multiple of {at_once}, or another --batch-size."
        )
    if given["micro_batches"] not in (None, whole // at_once):
        raise TrainerError(
            f"--sequences-per-step {whole} needs --micro-batches {whole // at_once} here: leave "
            "one of the two out."
        )
    return replace(recipe, micro_batches=whole // at_once)


def _are(num_ranks: int) -> str:
    return f"{num_ranks} {'is' if num_ranks == 1 else 'are'}"


def _config(given: dict[str, Any]) -> GPTConfig:
    if given["preset"] not in PRESETS:
        raise TrainerError(
            f"There is no preset {given['preset']!r}; the known ones are: {', '.join(PRESETS)}."
        )
    changed = {name: given[name] for name in SHAPES if given[name] is not None}
    for name in ("ff_dim", "num_kv_heads"):
        if changed.get(name) == 0:
            changed[name] = None
    flags = {n: given[n] for n in ("bias", "tied_embeddings") if given[n] is not None}
    return replace(PRESETS[given["preset"]], attention=given["attention"], **changed, **flags)


def _prediction(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text())
        json.dumps(content, allow_nan=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"it is no JSON: {error}"
        raise TrainerError(f"The prediction {path} cannot be read ({reason}).") from None
    if not isinstance(content, dict):
        raise TrainerError(f"The prediction {path} must be one JSON object, names and values.")
    return content
