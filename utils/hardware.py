"""Chips: peak rates, memory, power, from `utils/data/chips.csv`.

How it works: one frozen `Chip` per line of the table. Rates are dense (no sparsity) and, for 16-bit
and 8-bit, those with fp32 accumulation. A rate that the chip or its source does not have is None.
Left out: interconnects, clock speeds, prices (utils.prices).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from utils.data import check_row, read_table

DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8")


@dataclass(frozen=True)
class Chip:
    """One accelerator; rates in TFLOPS (1e12 FLOP/s), memory in GB (1e9 bytes), power in watts.

    `measured_..._tflops` is the best matrix multiplication measured by the source named for it.
    `use` is "trains", or "serves" for a chip that is made for inference only.
    """

    name: str = field(metadata={"column": "chip"})
    fp32_tflops: float | None
    tf32_tflops: float | None
    fp16_tflops: float | None
    bf16_tflops: float | None
    fp8_tflops: float | None
    memory_gb: float | None
    bandwidth_tb_s: float | None
    tdp_w: float | None
    measured_bf16_tflops: float | None
    measured_fp8_tflops: float | None
    use: str
    source: str
    read_on: date
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)
        if self.use not in ("trains", "serves"):
            raise ValueError(f"use is {self.use!r}; it must be trains or serves.")

    def peak_flops(self, dtype: str = "bf16") -> float:
        """Peak dense rate in FLOP/s. Raises ValueError for a type the chip has no rate for."""
        known = [each for each in DTYPES if getattr(self, f"{each}_tflops") is not None]
        if dtype not in known:
            raise ValueError(
                f"The table has no {dtype} rate for {self.name}; it has "
                f"{', '.join(known) or 'none at all'}."
            )
        return getattr(self, f"{dtype}_tflops") * 1e12


def load_chips() -> tuple[Chip, ...]:
    """All chips of the table, in its order."""
    return read_table("chips.csv", Chip)


def find_chip(name: str) -> Chip:
    """The chip of that name. Raises ValueError that lists the known ones."""
    chips = {chip.name: chip for chip in load_chips()}
    if name not in chips:
        raise ValueError(f"There is no chip {name!r}; the known ones are: {', '.join(chips)}.")
    return chips[name]
