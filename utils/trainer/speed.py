"""What one rank's chip could do at most: the denominator of MFU, and where it comes from.

How it works: `--chip` names a row of utils/data/chips.csv, or a GPU's own name finds it; the rate
is the dense one of the format that the recipe multiplies in. Where no row fits, such as on a CPU,
all ranks multiply square matrices at the same time for a moment, and the best product of each,
averaged over the ranks, is the peak. So ranks that share a core share its peak too.

Left out: TF32, which stays off, as in torch's defaults.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from utils.config import GPTConfig
from utils.costs import training_flops
from utils.hardware import find_chip
from utils.peers.agree import from_all
from utils.predict_checkpoint import recomputed_flops
from utils.recipe import TrainingRecipe
from utils.timing import synchronise
from utils.trainer.settings import TrainerError
from utils.trainer.systems import DTYPES

MEASURING_S, MIN_PRODUCTS = 0.2, 3
WIDTH_ON = {"cpu": 512, "cuda": 8192}  # large enough for a chip's best rate
GPU_NAMES = {  # in the driver's name of the device, and the row of the table; first match counts
    ("V100", "32GB"): "V100 32GB", ("T4",): "T4", ("3090",): "RTX 3090", ("4090",): "RTX 4090",
    ("A100", "40GB"): "A100 40GB", ("A100", "80GB"): "A100 80GB", ("H100", "PCIe"): "H100 PCIe",
    ("H100", "NVL"): "H100 NVL", ("H100", "HBM3"): "H100 SXM", ("H200",): "H200", ("B200",): "B200",
    ("H800",): "H800", ("B300",): "B300", ("L4",): "L4", ("MI300X",): "MI300X",
}  # fmt: skip


class Peak(NamedTuple):
    """FLOP/s of one rank in `dtype`; `source` is "chips.csv" or "measured product"."""

    flops_per_s: float
    dtype: str
    source: str
    chip: str | None = None


def find_peak(precision: str, device: torch.device, chip: str | None = None) -> Peak:
    """The peak of each rank; all ranks call it. Raises TrainerError for an unknown chip or rate."""
    if chip is None and device.type == "cuda":
        chip = chip_of(torch.cuda.get_device_name(device))
    if chip is None:
        return Peak(_measured_flops_per_s(precision, device), precision, "measured product")
    try:
        return Peak(find_chip(chip).peak_flops(precision), precision, "chips.csv", chip)
    except ValueError as error:
        raise TrainerError(str(error)) from None


def chip_of(device_name: str) -> str | None:
    """The table's row for a GPU's own name; None if it has none."""
    words = set(device_name.replace("-", " ").split())
    if "Laptop" in words:  # other chips under the same number
        return None
    found = (chip for parts, chip in GPU_NAMES.items() if words.issuperset(parts))
    return next(found, None)


def flops_per_step(recipe: TrainingRecipe, config: GPTConfig) -> tuple[int, int]:
    """(model FLOPs with nothing counted twice, FLOPs run again) of one step of all ranks."""
    shape = recipe.sequences_per_step, config.context_length
    again = 0
    if recipe.checkpointing == "blocks":
        each_block = tuple((number,) for number in range(config.num_layers))
        again = recomputed_flops(config, *shape, each_block)
    return training_flops(config, *shape), again


def _measured_flops_per_s(precision: str, device: torch.device) -> float:
    dtype, width = DTYPES.get(precision, torch.float32), WIDTH_ON[device.type]
    a, b = (torch.ones(width, width, dtype=dtype, device=device) for _ in range(2))
    from_all(None)  # all ranks start together, for they may share what they measure
    best_s, num_done, end_s = float("inf"), 0, time.perf_counter() + MEASURING_S
    while num_done < MIN_PRODUCTS or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        a @ b
        synchronise()
        best_s, num_done = min(best_s, time.perf_counter() - start_s), num_done + 1
    rates = from_all(2 * width**3 / best_s)
    return sum(rates) / len(rates)
