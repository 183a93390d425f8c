"""What the instruments themselves cost: `python -m utils.bench` (or `make bench`).

How it works: each figure is a median of interleaved runs on one thread. Targets are printed beside
the figures and never fail a test: a busy machine is no bug.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from utils.bench_sharded import sharded_ratios
from utils.bench_techniques import checkpoint_ratios, data_parallel_ratio
from utils.config import PRESETS
from utils.explorers import (
    activation_explorer,
    batch_explorer,
    dollars_explorer,
    recipe_explorer,
)
from utils.measured import measured, measured_where
from utils.memory import measure_memory
from utils.model import build_gpt, next_token_loss
from utils.scaling_explorers import scaling_explorer
from utils.timing import compare, time_step, use_one_thread

ROOT = Path(__file__).resolve().parents[1]
REDRAW_TARGET_MS = 150
IMPORT_TARGET_S = 2.5
INSTRUMENTS = (
    "import utils.model, utils.memory, utils.costs, utils.timing, utils.corpus, "
    "utils.measured, utils.predict, utils.train"
)


def meter_overhead(batch_size: int = 8) -> str:
    """How much longer a training step takes under the memory meter."""
    model = build_gpt(PRESETS["laptop"])
    optimizer = torch.optim.AdamW(model.parameters())
    tokens_BT = torch.zeros(batch_size, 128, dtype=torch.long)

    def step() -> None:
        next_token_loss(model, tokens_BT, tokens_BT).backward()
        optimizer.step()
        optimizer.zero_grad()

    timed = compare(
        {"plain": step, "metered": lambda: measure_memory(step, model, optimizer)}, repeats=9
    )
    return f"memory meter, laptop step: {measured(timed.sentence('metered', 'plain'))}"


def redraws(repeats: int = 9) -> Iterator[str]:
    """Milliseconds of one redraw of each explorer, through its first slider."""
    sizes = {1: 1.0, 2: 2.0, 4: 3.0}
    makers = (recipe_explorer, activation_explorer, dollars_explorer, scaling_explorer)
    for explorer in (*(make() for make in makers), batch_explorer(sizes, sizes)):
        median_ms = 1000 * time_step(explorer.redraw, repeats).median_s
        yield f"redraw, {explorer.title}: {measured(median_ms, 'ms')} (target {REDRAW_TARGET_MS})"


def import_seconds(repeats: int = 5) -> str:
    """Seconds from a fresh Python to the instruments, torch included."""
    code = f"import time; s = time.perf_counter(); {INSTRUMENTS}; print(time.perf_counter() - s)"
    command = [sys.executable, "-c", code]
    runs = [
        float(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout)
        for _ in range(repeats)
    ]
    return f"import: {measured(statistics.median(runs), 's')} (target {IMPORT_TARGET_S})"


def main() -> None:
    """Print every figure, with the machine and the date."""
    use_one_thread()
    print("Measured on", measured_where())
    for line in (meter_overhead(), *redraws(), import_seconds()):
        print(line)
    for line in (*checkpoint_ratios(), data_parallel_ratio(), *sharded_ratios()):
        print(line)


if __name__ == "__main__":
    main()
