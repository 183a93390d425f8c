"""Judge of lab 08, micro-batches: gradients that the optimizer sees, messages, what stays."""

from collections.abc import Callable

import torch

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, format_bytes, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_08_micro import (
    NUM_MICRO,
    NUM_STEPS,
    NUM_VALUES,
    SHAPES,
    StepRun,
    micro_trial,
)
from utils.checks.truth_08_micro_mistakes import name_of, shards, true_P

NUM_RANKS = 2
LIKELY_STUCK = "each rank gathers and reduces the units in one order, once a step"


@exercise(
    "08.3",
    "gather once for all micro-batches",
    hints=[
        "What would a micro-batch have to send if nothing stayed whole? Weights can stay until the "
        "update, sums of gradients until the last micro-batch. parameter.grad is bf16: what may "
        "it hold, at most?",
        "Gather all units. Make an fp32 zero tensor for each parameter. For each micro-batch: "
        "loss().backward(), add each parameter.grad to its tensor, set it to None. Then for each "
        "unit: free(), and reduce([total / len(losses) for ...]). optimizer.step(), "
        "optimizer.zero_grad().",
    ],
    seconds=100,
    lab="lab_08_fsdp",
)
def judge_micro(answer: Callable) -> str:
    """Two steps of eight micro-batches on two ranks."""
    require_function(answer)
    by_rank = on_ranks(micro_trial, NUM_RANKS, answer, likely=LIKELY_STUCK)
    runs = [(step, rank, steps[step]) for step in range(NUM_STEPS)
            for rank, steps in enumerate(by_rank)]  # fmt: skip
    for step, rank, run in runs:
        _require_gradients(f"Step {step + 1}, rank {rank}", run, step, rank)
    for step, rank, run in runs:
        _require_traffic(f"Step {step + 1}, rank {rank}", run)
        _require_memory(f"Step {step + 1}, rank {rank}", run)
    return (
        f"{NUM_STEPS} steps equal one process. Each of {len(SHAPES)} units is gathered once and "
        f"reduced once for {NUM_MICRO} micro-batches; FSDP as in the lesson gathers it "
        f"{2 * NUM_MICRO} times and reduces it {NUM_MICRO} times."
    )


def _require_gradients(where: str, run: StepRun, step: int, rank: int) -> None:
    likely = "call optimizer.step() once, after all micro-batches"
    require(run.num_updates, f"{where}: the optimizer was not called", likely=likely)
    what = f"{where}: {run.num_updates} updates"
    require(run.num_updates == 1, what, 1, run.num_updates, likely)
    missing = [k for k, gradient in enumerate(run.gradients) if gradient is None]
    what = f"{where}: the shard of unit {missing[:1]} has no gradient when the optimizer begins"
    require(not missing, what, likely="unit.reduce(gradients) before optimizer.step()")
    true = shards(true_P(step, NUM_RANKS), rank, NUM_RANKS)
    equal = [torch.allclose(a, b, rtol=1e-5) for a, b in zip(run.gradients, true, strict=True)]
    if not all(equal):
        unit = equal.index(False)
        norms = true[unit].norm().item(), run.gradients[unit].norm().item()
        likely = name_of(run.gradients, step, rank, NUM_RANKS)
        raise NotYet(f"{where}: the gradient of unit {unit} is wrong, its norm is off",
                     *norms, likely)  # fmt: skip


def _require_traffic(where: str, run: StepRun) -> None:
    pairs = ("gathers", run.num_gathers), ("reductions", run.num_reductions)
    for name, number in pairs:
        verb = name.removesuffix("s").replace("reduction", "reduce")
        likely = f"a {verb} in every micro-batch: what stays whole need not travel again"
        if number < NUM_MICRO * len(SHAPES):
            likely = "each unit once a step is enough"
        what = f"{where}: right, but too many {name}, of {len(SHAPES)} units together"
        require(number <= len(SHAPES), what, len(SHAPES), number, likely)


def _require_memory(where: str, run: StepRun) -> None:
    likely = "free the weights before the optimizer updates: they are stale from then on"
    what = f"{where}: {run.num_whole} of {len(SHAPES)} units are whole when the optimizer begins"
    require(run.num_whole == 0, what, likely=likely)
    likely = "parameter.grad = None after each micro-batch, optimizer.zero_grad() after the update"
    require(run.num_left == 0, f"{where}: {run.num_left} gradients are left behind", likely=likely)
    allowed = 10 * NUM_VALUES + 64  # bf16 weights and gradients, fp32 sums, and some slack
    what = (
        f"{where}: right, but {format_bytes(run.extra_bytes)} beside the shards when the last "
        f"micro-batch begins; {format_bytes(allowed)} are enough"
    )
    likely = "keep one fp32 sum for each parameter, not the gradients of all micro-batches"
    require(run.extra_bytes <= allowed, what, likely=likely)
