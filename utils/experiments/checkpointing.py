"""What five plans of checkpointing save and cost, on whatever device there is.

How it works: each plan gives one row: peak bytes (the allocator's on a GPU, the meter's on a CPU),
median seconds, FLOPs, and the largest batch whose peak stays within a limit: 90 % of a GPU's
memory, a fixed number of bytes on a CPU. "optimal" may use half of what a plain step adds to
weights and gradients. A step that runs out of memory gives None in place of a number.

Left out: the optimizer, whose state is the same for every plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch._ops import OpOverload

from utils.config import GPTConfig
from utils.experiments.fitting import give_back, largest_batch, survive
from utils.experiments.plan_runner import PlanRunner, Step
from utils.techniques.checkpointing import Checkpoint, checkpoint_by_hooks
from utils.techniques.segments import Plan
from utils.techniques.selective import checkpoint_keeping
from utils.timing import compare, time_step

GPU_SHARE = 0.9


@dataclass(frozen=True)
class Setting:
    """One model, the batch on which plans are compared, and the limit for the largest batch."""

    config: GPTConfig
    batch_size: int
    limit_bytes: int | None = None  # None: nine tenths of the GPU's memory
    finds_largest: bool = True


CPU_SETTINGS = (Setting(GPTConfig(6, 32, 128, 128, 256, attention="explicit"), 2, 2**26),)
GPT2 = Setting(GPTConfig(12, 12, 768, 1024, 50304), 8)
EXPLICIT = replace(GPT2.config, attention="explicit")
GPU_SETTINGS = (GPT2, Setting(EXPLICIT, 8, finds_largest=False))


def keep_linear(operation: OpOverload) -> bool:
    """Keep the results of linear layers; run attention's core and element-wise work again."""
    return operation in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


def block_plan(num_layers: int, step: int = 1) -> Plan:
    """Embedding, blocks of two halves, loss; each `step`-th block runs again as a whole."""
    blocks = [(2 * k + 1, 2 * k + 2) for k in range(num_layers)]
    parts = [(block,) if k % step == 0 else block for k, block in enumerate(blocks)]
    return (0, *(half for part in parts for half in part), 2 * num_layers + 1)


def plain_plan(num_layers: int) -> Plan:
    """The same layers, all of which keep what they save."""
    return tuple(range(2 * num_layers + 2))


PLANS: dict[str, tuple[Callable[[int], Plan] | None, Checkpoint]] = {
    "none": (plain_plan, checkpoint_by_hooks),
    "full": (block_plan, checkpoint_by_hooks),
    "every 2nd": (partial(block_plan, step=2), checkpoint_by_hooks),
    "selective": (block_plan, checkpoint_keeping(keep_linear)),
    "optimal": (None, checkpoint_by_hooks),
}


def checkpointing_sweep(device: str, repeats: int = 5) -> list[dict]:
    """One row for each plan and model: bytes, seconds, FLOPs, and the largest batch."""
    rows = []
    for setting in CPU_SETTINGS if device == "cpu" else GPU_SETTINGS:
        rows += _sweep(setting, device, repeats)
        give_back()
    return rows


def _sweep(setting: Setting, device: str, repeats: int) -> list[dict]:
    runner = PlanRunner(setting.config, device)
    limit_bytes = setting.limit_bytes or _gpu_limit_bytes()
    plain_bytes = runner.peak_bytes(step_by(runner, "none", setting.batch_size))
    added_bytes = (plain_bytes or limit_bytes) - runner.held_bytes
    target_bytes = runner.held_bytes + added_bytes // (2 if plain_bytes else 1)
    steps = {
        name: survive(partial(step_by, runner, name, setting.batch_size, target_bytes))
        for name in PLANS
    }
    rows = {name: _row(setting, runner, name, step) for name, step in steps.items()}
    fitting = {name: step for name, step in steps.items() if rows[name]["peak_bytes"]}
    timed = survive(partial(compare, fitting, repeats)) if fitting else None
    for name in fitting if timed else ():
        rows[name]["seconds"] = timed.timings[name].median_s
    for name, row in rows.items() if setting.finds_largest else ():
        known = rows["full"]["largest_batch"] if name == "optimal" else None
        row |= largest(runner, name, limit_bytes, known or setting.batch_size)
    return list(rows.values())


def step_by(runner: PlanRunner, name: str, batch_size: int, target_bytes: int = 0) -> Step:
    """A step by the plan of that name; "optimal" is planned for a peak of `target_bytes`."""
    make_plan, checkpoint = PLANS[name]
    if make_plan is None:
        plan = runner.best_plan(batch_size, target_bytes)
    else:
        plan = make_plan(runner.config.num_layers)
    return runner.step(plan, checkpoint, batch_size)


def largest_size(runner: PlanRunner, name: str, limit_bytes: int, first: int) -> int:
    """The largest batch whose step by the plan of that name stays within the limit."""

    def peak_of(batch_size: int) -> int | None:
        step = survive(partial(step_by, runner, name, batch_size, limit_bytes))
        return runner.peak_bytes(step) if step else None

    return largest_batch(peak_of, limit_bytes, first)


def largest(
    runner: PlanRunner, name: str, limit_bytes: int, first: int, repeats: int = 3
) -> dict[str, float | None]:
    """The largest batch within the limit, and the seconds of a step on it."""
    size, timing = largest_size(runner, name, limit_bytes, first), None
    if size:
        step = step_by(runner, name, size, limit_bytes)
        timing = survive(partial(time_step, step, repeats, 1))
    seconds = timing.median_s if timing else None
    return {"largest_batch": size, "largest_batch_seconds": seconds}


def _row(setting: Setting, runner: PlanRunner, name: str, step: Step | None) -> dict:
    peak = runner.peak_bytes(step) if step else None
    return {
        "attention": setting.config.attention,
        "plan": name,
        "batch_size": setting.batch_size,
        "num_tokens": setting.config.context_length,
        "held_bytes": runner.held_bytes,  # weights and gradients, part of every peak
        "peak_bytes": peak,
        "seconds": None,
        "flops": survive(partial(runner.flops, step)) if peak else None,
        "largest_batch": None,
        "largest_batch_seconds": None,
    }


def _gpu_limit_bytes() -> int:
    return int(GPU_SHARE * torch.cuda.get_device_properties(0).total_memory)
