"""Every experiment that `make record` runs: its name in the file, its function, its usual seconds.

How it works: a function takes "cpu" or "cuda" and returns rows, flat dicts that JSON can hold, and
that `utils.recorded_rows` describes. It raises `NotHere` with one sentence where the machine lacks
what it needs. Modules are imported when an experiment runs, so that listing them costs nothing.

`cpu_s` and `gpu_s` are its usual seconds on one core of 2026 and on a GPU of the H100's class; the
budget is shared out in their proportion. No GPU has been at hand yet: `gpu_s` is an estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

Rows = list[dict[str, Any]]
SCRATCH = "COURSE_RECORD_SCRATCH"  # names a folder that is gone after the run, even a killed one


class NotHere(RuntimeError):
    """This machine lacks what the experiment needs; the message says what, in a few words."""


@dataclass(frozen=True)
class Experiment:
    """One entry of a recorded file."""

    name: str
    module: str  # below utils.experiments
    function: str
    lessons: str
    about: str
    cpu_s: float
    gpu_s: float

    def load(self) -> Callable[[str], Rows]:
        """The function behind the name."""
        return getattr(import_module(f"utils.experiments.{self.module}"), self.function)

    def usual_s(self, device: str) -> float:
        """Its usual seconds on this kind of device."""
        return self.cpu_s if device == "cpu" else self.gpu_s


EXPERIMENTS: dict[str, Experiment] = {
    each.name: each
    for each in (
        Experiment("matmul_precision", "precision", "matmul_sweep", "02",
                   "matrix products by format and size", 5, 10),
        Experiment("step_precision", "precision", "step_sweep", "02, 11",
                   "forward and backward by format", 5, 12),
        Experiment("whole_step", "whole_step", "whole_step_sweep", "01-03",
                   "a step with AdamW and loss scaling, torch's and ours", 10, 15),
        Experiment("checkpointing", "checkpointing", "checkpointing_sweep", "04, 05, 11",
                   "bytes, seconds, largest batch of five plans", 35, 60),
        Experiment("capstone", "capstone", "capstone_sweep", "01, 11",
                   "share of the peak rate (MFU) by batch, compiled or not", 12, 60),
        Experiment("ladder", "ladder_sweep", "ladder_sweep", "10",
                   "one change a rung, from fp32 to YaFSDP", 40, 80),
        Experiment("attention", "attention", "attention_sweep", "11",
                   "explicit and fused attention by context", 10, 15),
        Experiment("compile", "compiling", "compile_sweep", "11",
                   "torch.compile: seconds to compile, seconds a step", 40, 50),
        Experiment("algorithms", "algorithms", "algorithm_sweep", "11",
                   "tokens to one loss: AdamW, tuned AdamW, Muon", 45, 60),
        Experiment("collectives", "rank_steps", "collective_sweep", "06",
                   "all-reduce by size, on two ranks", 8, 8),
        Experiment("ranks", "rank_steps", "rank_sweep", "06-09",
                   "steps and bytes of DDP, ZeRO, FSDP, YaFSDP on two ranks", 35, 20),
    )
}  # fmt: skip
