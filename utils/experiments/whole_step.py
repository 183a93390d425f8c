"""A whole training step by format, torch's way and ours: autocast, loss scaling, AdamW, bytes.

How it works: each recipe trains the same GPT on its own copy of the weights, in turn, step by step.
"fp16" scales the loss and looks for overflows; "ours" is the autocast and the scaler of lessons 02
and 03 under the same optimizer. On a GPU the peak is the allocator's, on a CPU the memory meter's.

Left out: ranks (rank_steps.py), and a CPU's fp16, which few processors compute in.
"""

from __future__ import annotations

import torch

from utils.config import PRESETS, GPTConfig
from utils.experiments.fitting import give_back
from utils.experiments.precision import precisions
from utils.experiments.registry import Rows
from utils.memory import measure_memory
from utils.model import build_gpt
from utils.recipe import TrainingRecipe
from utils.timing import compare
from utils.trainer.systems import job_of, system_of

CPU_JOB, GPU_JOB = (PRESETS["laptop"], 8), (GPTConfig(12, 12, 768, 1024, 50304), 8)


def whole_step_sweep(device: str, repeats: int = 7) -> Rows:
    """One row for each format and library."""
    config, batch_size = CPU_JOB if device == "cpu" else GPU_JOB
    recipes = [
        TrainingRecipe(precision=precision, library=library, batch_size=batch_size)
        for precision in formats(device)
        for library in ("torch", "ours")
        if (precision, library) != ("fp32", "ours")  # nothing of ours is in it
    ]
    steps = {recipe: OneStep(recipe, config) for recipe in recipes}
    timed = compare(steps, repeats)
    peaks = {recipe: _peak_bytes(recipe, config, device) for recipe in recipes}
    tokens = batch_size * config.context_length
    return [
        {
            "recipe": recipe.name,
            "precision": recipe.precision,
            "library": recipe.library,
            "num_layers": config.num_layers,
            "model_dim": config.model_dim,
            "batch_size": batch_size,
            "seconds": timing.median_s,
            "tokens_per_s": tokens / timing.median_s,
            "peak_bytes": peaks[recipe],
        }
        for recipe, timing in timed.timings.items()
    ]


def formats(device: str) -> list[str]:
    """What a whole step is tried in here."""
    names = [name for name in precisions(device) if name in ("fp32", "bf16", "fp16")]
    return [name for name in names if name != "fp16" or device != "cpu"]


class OneStep:
    """A system of its own, and a batch; a call trains one step."""

    def __init__(self, recipe: TrainingRecipe, config: GPTConfig) -> None:
        job = job_of(recipe, config)
        self.system = system_of(recipe)(build_gpt(job.config), 0, 1, job)
        shape = (recipe.batch_size, config.context_length)
        self.tokens_BT = torch.randint(config.vocab_size, shape, device=self.system.device)

    def __call__(self) -> None:
        self.system.backward(self.tokens_BT, self.tokens_BT, True)
        self.system.step()


def _peak_bytes(recipe: TrainingRecipe, config: GPTConfig, device: str) -> int:
    """Peak of a second step, whose optimizer state is there from the start."""
    give_back()
    others = 0 if device == "cpu" else torch.cuda.memory_allocated()
    step = OneStep(recipe, config)
    step()
    if device == "cpu":
        return measure_memory(step, step.system.model, step.system.optimizer).peak_bytes
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - others
