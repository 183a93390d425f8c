"""The rungs of the ladder: eight recipes, each one change away from the one below it.

How it works: `rungs_of` starts from fp32 with explicit attention in one process and changes one
thing after the other; `changed_things` says which, so that a test (or a learner with another
ladder) sees when a rung mixes two. The rungs on ranks cut the same step in parts, and are all ours,
so that they differ by the method alone.

Left out: other orders, and tuning a rung for its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from utils.config import GPTConfig
from utils.recipe import TrainingRecipe

CONFIG = GPTConfig(num_layers=4, num_heads=4, model_dim=64, context_length=128)
# What can change from rung to rung: fields of a recipe that are one decision together.
THINGS = {
    "precision": ("precision",),
    "attention": ("attention",),
    "checkpointing": ("checkpointing",),
    "batch": ("sequences_per_step",),
    "method": ("method", "library", "num_ranks"),
}


@dataclass(frozen=True)
class Rung:
    """One way to train, and its short name on the ladder."""

    name: str
    recipe: TrainingRecipe


def rungs_of(batch_size: int = 2, larger: int = 4, num_ranks: int = 2) -> tuple[Rung, ...]:
    """The eight rungs; a batch is a step's sequences, `larger` of which divide by the ranks."""
    changes: dict[str, dict[str, Any]] = {
        "fp32": {},
        "bf16": {"precision": "bf16"},
        "fused attention": {"attention": "fused"},
        "checkpointing": {"checkpointing": "blocks"},
        "bigger batch": {"batch_size": larger},
        f"{num_ranks} x DDP": {
            "method": "ddp", "library": "ours", "num_ranks": num_ranks,
            "batch_size": larger // num_ranks,
        },
        f"{num_ranks} x FSDP": {"method": "fsdp"},
        f"{num_ranks} x YaFSDP": {"method": "yafsdp"},
    }  # fmt: skip
    recipe, rungs = TrainingRecipe(attention="explicit", batch_size=batch_size), []
    for name, change in changes.items():
        recipe = replace(recipe, **change)
        rungs.append(Rung(name, recipe))
    return tuple(rungs)


RUNGS = rungs_of()


def changed_things(before: TrainingRecipe, after: TrainingRecipe) -> list[str]:
    """Which of THINGS differ between two recipes: one, between neighbouring rungs."""
    return [
        thing
        for thing, names in THINGS.items()
        if any(getattr(before, name) != getattr(after, name) for name in names)
    ]


def world_size_of(recipes: Sequence[TrainingRecipe]) -> int:
    """How many ranks one launch of them needs: 1, or the one number above 1.

    Raises ValueError for no recipe, or for two numbers of ranks above 1.
    """
    counts = sorted({recipe.num_ranks for recipe in recipes} - {1})
    if not recipes or len(counts) > 1:
        raise ValueError(
            "A ladder has at least one rung, and of those with several ranks all have equally "
            f"many; these have {' and '.join(map(str, counts)) or 'no rung'}."
        )
    return counts[0] if counts else 1
