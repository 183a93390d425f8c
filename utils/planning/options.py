"""The recipes that a request leaves open, and each one's bytes, time, dollars and problem.

How it works: for each method, precision and checkpointing the largest micro-batch is taken that
fits the chip's memory; the batch of all GPUs stays what was asked for. A recipe that does not fit,
ends after the deadline or costs more than the budget is kept, with the problem in words.

The method decides by whose code it runs here: torch's DDP and FSDP, DeepSpeed's ZeRO, our YaFSDP.
Left out: tensor and pipeline parallelism, offloading, fp8, two levels of sharding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from utils.hardware import Chip
from utils.planning.hour_price import HourPrice
from utils.planning.recipe_bytes import recipe_bytes
from utils.planning.request import PlanRequest
from utils.planning.step_time import StepTime, step_time
from utils.planning.texts import GB, dollars, duration, gigabytes
from utils.prices import energy_kwh
from utils.recipe import WHOLE_WEIGHTS, TrainingRecipe
from utils.sharded_bytes import ShardedBytes

LIBRARY_OF = {
    "single": "torch", "ddp": "torch", "fsdp": "torch", "zero1": "deepspeed",
    "zero2": "deepspeed", "zero3": "deepspeed", "yafsdp": "ours",
}  # fmt: skip


@dataclass(frozen=True)
class PlannedRecipe:
    """One recipe with all that is predicted of it; `problem` is empty if it can be used."""

    recipe: TrainingRecipe
    peak: ShardedBytes  # of one GPU, at its highest moment
    step: StepTime
    num_steps: int
    hour: HourPrice
    kwh: float
    over_bytes: float = 0.0  # more than the chip has for training
    problem: str = ""  # a predicate: "needs ...", "takes ...", "costs ..."

    @property
    def is_too_large(self) -> bool:
        """Whether memory is the problem, which neither time nor money mends."""
        return self.over_bytes > 0

    @property
    def step_s(self) -> dict[str, float]:
        """Seconds of one step by part."""
        return dict(self.step.parts_s)

    @property
    def days(self) -> float:
        """Days of training."""
        return self.num_steps * self.step.total_s / 86_400

    @property
    def gpu_hours(self) -> float:
        """Hours of work of all GPUs together."""
        return 24 * self.days * self.step.num_gpus

    @property
    def usd(self) -> float:
        """Dollars of all GPUs, by the hour."""
        return self.gpu_hours * self.hour.usd

    @property
    def tokens_per_s(self) -> float:
        """Of all GPUs."""
        return self.step.tokens_per_s

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation, of the peak at the recipe's precision."""
        return self.step.mfu

    def prediction(self) -> dict[str, float | str]:
        """What `utils.train --prediction` keeps in a run's log, to compare the run with."""
        return {
            "recipe": self.recipe.name, "peak_bytes": self.peak.total,
            "step_s": self.step.total_s, "tokens_per_s": self.tokens_per_s, "mfu": self.mfu,
            "steps": self.num_steps, "days": self.days, "usd": self.usd,
        }  # fmt: skip


def usable_bytes(request: PlanRequest) -> float:
    """What the chip's memory leaves for training."""
    return request.chip_row.memory_gb * GB * request.assumptions.memory_share


def precisions(chip: Chip) -> tuple[str, ...]:
    """bf16 where the chip multiplies it, else fp16; and fp32."""
    low = "bf16" if chip.bf16_tflops else "fp16"
    known = {"fp32": chip.fp32_tflops, low: getattr(chip, f"{low}_tflops")}
    return tuple(name for name in (low, "fp32") if known[name])


def planned_recipes(request: PlanRequest, hour: HourPrice) -> list[PlannedRecipe]:
    """Every method, precision and checkpointing once, feasible or not."""
    return [_judged(request, hour, recipe) for recipe in _open_recipes(request)]


def _open_recipes(request: PlanRequest) -> Iterator[TrainingRecipe]:
    again = ("none", "blocks") if request.checkpointing == "allowed" else ("none",)
    for method in _methods(request):
        for precision in precisions(request.chip_row)[: 1 if request.only_low_precision else 2]:
            if precision == "fp16" and method not in WHOLE_WEIGHTS:
                continue  # loss scaling is here for whole weights only
            for checkpointing in again:
                yield _with_largest_batch(request, method, precision, checkpointing)


def _methods(request: PlanRequest) -> list[str]:
    """One GPU needs no method; several need one."""
    alone = request.num_gpus == 1
    chosen = [each for each in request.methods if (each == "single") == alone]
    if not chosen:
        raise ValueError(
            f"None of the methods {', '.join(request.methods)} is for {request.num_gpus} "
            f"GPU{'s' * (not alone)}: " + ("take single." if alone else "take ddp or another one.")
        )
    return chosen


def _with_largest_batch(
    request: PlanRequest, method: str, precision: str, checkpointing: str
) -> TrainingRecipe:
    """The largest micro-batch that fits, or one sequence if none does."""
    share = request.step_sequences // request.num_gpus
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    room, config = usable_bytes(request), request.config

    def recipe_of(size: int) -> TrainingRecipe:
        return TrainingRecipe(
            precision, "fused", checkpointing, method, LIBRARY_OF[method], size, share // size,
            request.num_gpus,
        )  # fmt: skip

    low, high = 0, len(sizes)  # sizes[:low] are known to fit, sizes[high:] not to
    while low < high:
        middle = (low + high) // 2
        fits = recipe_bytes(recipe_of(sizes[middle]), config, 0, "nccl").peak.total <= room
        low, high = (middle + 1, high) if fits else (low, middle)
    return recipe_of(sizes[max(0, low - 1)])


def _judged(request: PlanRequest, hour: HourPrice, recipe: TrainingRecipe) -> PlannedRecipe:
    peak = recipe_bytes(recipe, request.config, 0, "nccl").peak
    step = step_time(
        recipe, request.config, request.chip_row, request.cluster, request.assumptions
    )
    hours = request.num_steps * step.total_s / 3600 * request.num_gpus
    watts = request.chip_row.tdp_w
    kwh = energy_kwh(hours, watts, request.assumptions.pue) if watts else float("nan")
    over_bytes = max(0.0, peak.total - usable_bytes(request))
    planned = PlannedRecipe(recipe, peak, step, request.num_steps, hour, kwh, over_bytes)
    return replace(planned, problem=_problem(request, planned))


def _problem(request: PlanRequest, planned: PlannedRecipe) -> str:
    """The first thing that is wrong, in words."""
    if planned.is_too_large:
        return (
            f"needs {gigabytes(planned.peak.total)} GB, {gigabytes(planned.over_bytes)} more than "
            f"the {gigabytes(usable_bytes(request))} of {request.chip_row.memory_gb:g} GB that are "
            f"usable on {request.chip}"
        )
    deadline, budget = request.deadline_days, request.budget_usd
    if deadline is not None and planned.days > deadline:
        late = duration(planned.days - deadline)
        return f"takes {duration(planned.days)}, {late} over the deadline of {duration(deadline)}"
    if budget is not None and planned.usd > budget:
        over = dollars(planned.usd - budget)
        return f"costs {dollars(planned.usd)}, {over} over the budget of {dollars(budget)}"
    return ""
