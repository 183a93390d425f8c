"""Seconds of a step on this machine, predicted from smaller steps of other shapes.

How it works: what a step costs grows in a straight line with the layers, and for each layer (and
for what is outside of the layers) in a straight line with the sequences that a rank sends through:

    seconds = a + b * sequences + layers * (c + d * sequences)

so four small shapes give all four, for every way to train. c holds what does not depend on the
batch: calls, casts of weights, messages; d holds the products. `calibrate` times models of
`LAYERS` layers on `SEQUENCES` sequences, all ways in turn in one launch; `MachineTimes` puts them
together for any other depth and batch. The update is timed apart, so that a part can be named:
what runs again and what ranks cost are differences of two ways to train.

A step that is itself one of the small shapes is refused: it would be measured, not predicted. Left
out: other widths and contexts, whose products reach another share of the processor's peak; waiting
for a rank that somebody else's work slows down.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from utils.config import GPTConfig
from utils.experiments.ladder_ranks import RankReport, Schedule, train_entries
from utils.experiments.ladder_results import slowest_steps
from utils.experiments.ladder_rungs import world_size_of
from utils.ranks import run_ranks
from utils.recipe import TrainingRecipe

LAYERS, SEQUENCES = (1, 3), (1, 3)
SHAPES = tuple((layers, sequences) for layers in LAYERS for sequences in SEQUENCES)
NUM_ROUNDS, BUDGET_S, TIMEOUT_S = 15, 8.0, 400.0
PARTS = ("forward and backward", "run again", "spread over ranks", "optimizer")
Seconds = tuple[float, float]  # of forward and backward, of the update


@dataclass(frozen=True)
class MachineTimes:
    """What the small steps took: by way to train, then by (layers, sequences of a rank)."""

    config: GPTConfig
    small: Mapping[TrainingRecipe, Mapping[tuple[int, int], Seconds]]

    def step_s(self, recipe: TrainingRecipe, num_layers: int = 0) -> float:
        """Seconds of one step of the recipe on a model of so many layers; 0: the config's.

        Raises ValueError for a shape that was timed, or a way to train that was not.
        """
        return sum(self.parts(recipe, num_layers).values())

    def parts(self, recipe: TrainingRecipe, num_layers: int = 0) -> dict[str, float]:
        """The step's seconds by PARTS; spreading can save some, where it spares casts."""
        shape = num_layers or self.config.num_layers, recipe.batch_size
        if shape in SHAPES:
            raise ValueError(
                f"{shape[0]} layers on {shape[1]} sequences were timed to calibrate: predict a "
                "step of another depth or batch."
            )
        way, seconds = way_of(recipe), dict.fromkeys(PARTS, 0.0)
        seconds["optimizer"] = self._update_s(way, shape[0])
        for part, simpler in simpler_ways(way).items():
            seconds[part] = self._passes_s(way, *shape) - self._passes_s(simpler, *shape)
            way = simpler
        seconds["forward and backward"] = self._passes_s(way, *shape)
        return {
            part: value * (1 if part == "optimizer" else recipe.micro_batches)
            for part, value in seconds.items()
        }

    def _passes_s(self, way: TrainingRecipe, num_layers: int, sequences: int) -> float:
        """Forward and backward, with whatever the way adds to them."""
        small = self._small(way)
        lines = {
            layers: along(SEQUENCES, sequences, [small[layers, each][0] for each in SEQUENCES])
            for layers in LAYERS
        }
        return along(LAYERS, num_layers, [lines[layers] for layers in LAYERS])

    def _update_s(self, way: TrainingRecipe, num_layers: int) -> float:
        """The update, which knows nothing of the batch: the mean over the batches."""
        small = self._small(way)
        means = [
            statistics.fmean(small[layers, each][1] for each in SEQUENCES) for layers in LAYERS
        ]
        return along(LAYERS, num_layers, means)

    def _small(self, way: TrainingRecipe) -> Mapping[tuple[int, int], Seconds]:
        if way not in self.small:
            raise ValueError(
                f"{way.name} was not timed on this machine: give the recipe to calibrate first."
            )
        return self.small[way]


def way_of(recipe: TrainingRecipe) -> TrainingRecipe:
    """The recipe without its batch: what was timed in small steps."""
    return replace(recipe, batch_size=1, micro_batches=1)


def simpler_ways(way: TrainingRecipe) -> dict[str, TrainingRecipe]:
    """What to compare with to name a part, from the outside in: one process, then no second run."""
    simpler = {}
    if way.method != "single":
        way = replace(way, method="single", library="torch", num_ranks=1)
        simpler["spread over ranks"] = way
    if way.checkpointing != "none":
        way = replace(way, checkpointing="none")
        simpler["run again"] = way
    return simpler


def along(places: Sequence[int], at: int, values: Sequence[float]) -> float:
    """The straight line through the values at two places, at a third one."""
    slope = (values[1] - values[0]) / (places[1] - places[0])
    return values[0] + slope * (at - places[0])


def calibrate(
    recipes: Sequence[TrainingRecipe], config: GPTConfig,
    num_rounds: int = NUM_ROUNDS, budget_s: float = BUDGET_S, backend: str | None = "gloo",
) -> MachineTimes:  # fmt: skip
    """Time one step of every small shape a round, after a round that does not count."""
    ways = dict.fromkeys(
        each for recipe in recipes for each in (way_of(recipe), *_within(way_of(recipe)))
    )
    entries = [
        (replace(way, batch_size=sequences), replace(config, num_layers=layers))
        for way in ways
        for layers, sequences in SHAPES
    ]
    world_size = world_size_of(recipes)
    rounds = _rounds(config, world_size * math.lcm(*SEQUENCES), 1 + num_rounds)
    reports = run_ranks(
        train_entries, world_size, entries, Schedule(rounds, budget_s=budget_s, most_steps=1),
        timeout_s=TIMEOUT_S, backend=backend, quiet=True,
    )  # fmt: skip
    seconds = iter([small_seconds(reports, number) for number in range(len(entries))])
    return MachineTimes(config, {way: {shape: next(seconds) for shape in SHAPES} for way in ways})


def small_seconds(reports: Sequence[RankReport], number: int) -> Seconds:
    """Medians of one entry's step: forward and backward, then the update."""
    steps = slowest_steps(reports, number)
    passes_s = statistics.median(each.total_s - each.update_s for each in steps)
    return passes_s, statistics.median(each.update_s for each in steps)


def _within(way: TrainingRecipe) -> tuple[TrainingRecipe, ...]:
    return tuple(simpler_ways(way).values())


def _rounds(
    config: GPTConfig, sequences: int, num_rounds: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = (num_rounds, 2, sequences, config.context_length)
    drawn = torch.randint(config.vocab_size, shape, generator=generator)
    return [(tokens_BT, targets_BT) for tokens_BT, targets_BT in drawn]
