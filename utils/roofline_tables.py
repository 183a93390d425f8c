"""Tables of the roofline: every part of a step on one chip, and the speed-ups of many chips.

How it works: rows for `utils.measured.table`, from utils.roofline. Where the table of chips has no
rate, a cell is "-"; so it is for autocast on a TPU, whose compiler casts inside other operations.
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.config import GPTConfig
from utils.hardware import Chip, find_chip
from utils.roofline import flops_rate, has_rates, roofline, rounds_fp32, speed_up

SHOWN_CHIPS = (
    "V100 32GB", "T4", "RTX 3090", "RTX 4090", "L4", "A100 80GB", "H100 SXM", "H200", "B200",
    "MI300X", "TPU v5e", "TPU v5p", "TPU v6e",
)  # fmt: skip
SPEED_UP_HEADERS = (
    "chip", "16-bit peak over fp32", "bf16 over fp32", "autocast over fp32", "bf16 over TF32",
    "fp8 over bf16",
)  # fmt: skip
PART_HEADERS = ("part", "FLOPs", "bytes", "FLOPs per byte", "ms", "bound by", "speed-up")


def speed_up_rows(
    config: GPTConfig, batch_size: int, chips: Sequence[str] = SHOWN_CHIPS
) -> list[tuple[str, ...]]:
    """A row under SPEED_UP_HEADERS per chip; "-" where the table has no rate."""
    pairs = (("bf16", "fp32"), ("autocast", "fp32"), ("bf16", "tf32"), ("fp8", "bf16"))
    rows = []
    for chip in map(find_chip, chips):
        cells = [_peak_ratio(chip)]
        for new, old in pairs:
            known = has_rates(chip, new) and has_rates(chip, old)
            gain = speed_up(chip, config, batch_size, new, old) if known else None
            cells.append(f"{gain:.2f}" if gain else "-")
        rows.append((chip.name, *cells))
    return rows


def part_rows(
    chip: Chip | str,
    config: GPTConfig,
    batch_size: int,
    precision: str = "bf16",
    over: str = "fp32",
) -> list[tuple[str, ...]]:
    """A row under PART_HEADERS per part in `precision`, with its speed-up over `over`."""
    before = roofline(chip, config, batch_size, over).parts
    rows = []
    for name, part in roofline(chip, config, batch_size, precision).parts.items():
        gain = f"{before[name].seconds / part.seconds:.2f}" if name in before else "-"
        counts = f"{part.flops:.3g}", f"{part.num_bytes:.3g}", f"{part.intensity:,.1f}"
        rows.append((name, *counts, f"{1e3 * part.seconds:.2f}", part.bound_by, gain))
    return rows


def _peak_ratio(chip: Chip) -> str:
    if rounds_fp32(chip):
        return "1 (multiplies in bf16)"
    if not chip.fp32_tflops:
        return "-"
    return f"{flops_rate(chip, 'bf16') / chip.peak_flops('fp32'):.1f}"
