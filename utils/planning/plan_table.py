"""A plan as plain text: the ranked recipes, the refused ones, and the command that trains.

How it works: rows of texts with the widths of their longest cell. The command has the recipe's own
flags (`TrainingRecipe.command`) and the model's; the trainer of the course reads bytes, so that the
model's vocabulary becomes 256, and the line above it says so.

Left out: pictures (utils.planner_explorer).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from utils.planning.hour_price import HourPrice
from utils.planning.options import PlannedRecipe
from utils.planning.request import PlanRequest
from utils.planning.texts import GB, dollars, duration, gigabytes, number, share, token_count
from utils.trainer.arguments import config_flags
from utils.trainer.settings import VOCABULARY

HEADERS = ("recipe", "batch", "GB a GPU", "step, s", "time", "dollars", "kWh", "tokens/s", "MFU")
SHOWN_REFUSED = 8


def plan_rows(planned: Sequence[PlannedRecipe]) -> list[list[str]]:
    """One row of texts for each recipe, by HEADERS."""
    return [
        [
            each.recipe.name, f"{each.recipe.batch_size} x {each.recipe.micro_batches}",
            gigabytes(each.peak.total), number(each.step.total_s), duration(each.days),
            dollars(each.usd)[1:], number(each.kwh), f"{each.tokens_per_s:,.0f}", share(each.mfu),
        ]
        for each in planned
    ]  # fmt: skip


def time_rows(*planned: PlannedRecipe) -> list[list[str]]:
    """A step's seconds by part, then all of it; of each recipe seconds and share of the step."""
    return _part_rows([each.step_s for each in planned], 1.0, "s", "the step")


def size_rows(*planned: PlannedRecipe) -> list[list[str]]:
    """Bytes on one GPU at the peak by category, then all; of each recipe GB and share."""
    return _part_rows([each.peak.by_category() for each in planned], GB, "GB", "the peak")


def _part_rows(
    wholes: Sequence[Mapping[str, float]], one: float, unit: str, whole: str
) -> list[list[str]]:
    """A row for each part that any of them has."""
    totals = [sum(parts.values()) for parts in wholes]
    rows = [
        [name, *(cell for parts, total in zip(wholes, totals, strict=True)
                 for cell in (f"{number(parts[name] / one)} {unit}", share(parts[name] / total)))]
        for name in wholes[0]
        if any(parts[name] for parts in wholes)
    ]  # fmt: skip
    sums = (cell for total in totals for cell in (f"{number(total / one)} {unit}", "100%"))
    return [*rows, [whole, *sums]]


def plan_lines(
    request: PlanRequest, hour: HourPrice, feasible: Sequence[PlannedRecipe],
    refused: Sequence[PlannedRecipe],
) -> list[str]:  # fmt: skip
    """The whole plan."""
    length = request.config.context_length
    lines = [
        f"{request.model_name}, {token_count(request.tokens)}, "
        f"{request.step_sequences:,} sequences of {length:,} a step, "
        f"{request.num_gpus:,} x {request.chip} at {dollars(hour.usd)} an hour ({hour.words})"
    ]
    if feasible:
        lines += ["", *columns([list(HEADERS), *plan_rows(feasible)])]
        name = feasible[0].recipe.name
        lines += ["", f"Seconds of a step of {name}:", *columns(time_rows(feasible[0]))]
        lines += ["", f"GB on one GPU at the peak of {name}:", *columns(size_rows(feasible[0]))]
    if refused:
        lines += ["", f"Out ({len(refused)}):"]
        lines += columns([[each.recipe.name, each.problem] for each in refused[:SHOWN_REFUSED]])
        if len(refused) > SHOWN_REFUSED:
            lines.append(f"and {len(refused) - SHOWN_REFUSED} more.")
    if feasible:
        lines += ["", _command_heading(request), plan_command(request, hour, feasible[0])]
    return lines


def _command_heading(request: PlanRequest) -> str:
    """Where to give the command, and that it trains another vocabulary than the plan's."""
    heading, vocab_size = "The command", request.config.vocab_size
    if request.cluster.num_nodes > 1:
        heading += ", on each machine, with $HEAD the first one's address"
    if vocab_size != VOCABULARY:
        heading += (
            f"; it trains a byte model of the same shape (a vocabulary of {VOCABULARY} instead of "
            f"{vocab_size:,}), so that the bill above is not exactly its bill"
        )
    return f"{heading}:"


def plan_command(request: PlanRequest, hour: HourPrice, planned: PlannedRecipe) -> str:
    """The line for a terminal that trains by this recipe; `--text` and `--folder` are yours."""
    config = replace(request.config, vocab_size=VOCABULARY)
    words = (
        *config_flags(config), "--steps", str(planned.num_steps), "--chip",
        shlex.quote(request.chip), "--usd-per-gpu-hour", f"{hour.usd:.4g}", "--text", "TEXT",
        "--folder", "RUN",
    )  # fmt: skip
    return planned.recipe.command(*words, num_nodes=request.cluster.num_nodes)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (
            f"{cell:<{width}}" if place == 0 or len(rows[0]) == 2 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join((first, *rest)).rstrip())
    return lines
