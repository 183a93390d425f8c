"""What the planner assumes of chips, kernels and sites: every constant by its name, in one place.

How it works: one frozen dataclass. `MATMUL_SHARE` and `CONTENTION` were fitted, once, to two
published trainings and four rows of YaFSDP's table (named in utils.planning.published), and are the
same for all chips and models; everything else is counted, cited or assumed, and says which. Pass
`replace(Assumptions(), ...)` to plan by your own.

Left out: what no constant stands for: evaluations, restarts, stragglers, loading of data, a chip
that slows down in heat, kernels too small to fill a chip.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from utils.hardware import Chip
from utils.simulate.links import LINKS, Link

MATMUL_SHARE, CONTENTION = 0.76, 0.1  # see `Assumptions`
_IB = LINKS["InfiniBand 400 Gbit/s"]
INFINIBAND_200 = Link(_IB.latency_s, _IB.bytes_per_s / 2, "assumption: 200 Gbit/s for each GPU")
_PORT = LINKS["Ethernet 25 Gbit/s"]
SHARED_PORT = Link(_PORT.latency_s, _PORT.bytes_per_s / 8, "assumption: 25 Gbit/s for 8 GPUs")
_INSIDE = {  # by the first word of the chip's name
    "V100": LINKS["NVLink 2 (V100)"], "A100": LINKS["NVLink 3 (A100)"],
    "H100": LINKS["NVLink 4 (H100)"], "H200": LINKS["NVLink 4 (H100)"],
    "B200": LINKS["NVLink 5 (B200)"], "B300": LINKS["NVLink 5 (B200)"],
}  # fmt: skip
_CARDS = ("H100 PCIe", "H100 NVL")  # no NVLink between all cards of a machine


@dataclass(frozen=True)
class Assumptions:
    """Shares lie in (0, 1]; bytes are per value, seconds per kernel."""

    # Fitted (utils.planning.published): of the best measured product, at the shapes of training.
    matmul_share: float = MATMUL_SHARE
    # Best measured over peak where the table has no measurement: A100 0.87, H100 0.80, B200 0.78,
    # MI300X 0.51 (ml-engineering compute/accelerator at 744d01e, 2026-08-22).
    measured_over_peak: float = 0.8
    # Assumed: the fused kernel skips the masked half of the scores, and reaches half the rate.
    attention_share: float = 0.5
    # Assumed: what element-wise kernels reach of the published memory bandwidth.
    bandwidth_share: float = 0.85
    # Fitted: seconds that compute loses for each second of a message that it hides.
    contention: float = CONTENTION
    # ml-engineering network/README at 0030e63: "expect about 80 %" of a link's published rate.
    link_share: float = 0.8
    # Counted: torch's AdamW on a GPU, eight kernels over all tensors (foreach), fp32.
    optimizer_bytes_per_value: float = 80.0
    # Counted: cross-entropy on fp32 logits as torch does it, forward and backward, per logit.
    loss_bytes_per_logit: float = 38.0
    # Assumed: the processor issues a kernel in so many seconds; a chip is never faster than that.
    kernel_s: float = 5e-6
    # Assumed: of a chip's memory, what CUDA, NCCL and fragments leave.
    memory_share: float = 0.93
    # Assumed: a site's power over that of its GPUs, cooling and hosts together.
    pue: float = 1.2
    # Assumed: of rented spot hours, those lost to interruptions and restarts.
    spot_restart_share: float = 0.1
    # Assumed: bought hardware is written off evenly over so many years, and runs all the time.
    lifetime_years: float = 4.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not value > 0 or (each.name.endswith("share") and value > 1):
                raise ValueError(f"{each.name} is {value}; it must be above 0, a share at most 1.")
        if self.pue < 1:
            raise ValueError(f"pue is {self.pue}; a site draws at least what its GPUs draw.")


def inside_link(chip: Chip) -> Link:
    """Between GPUs of one machine: NVLink where the chip has it, else PCIe 4 (an assumption)."""
    if chip.name in _CARDS:
        return LINKS["PCIe 5 x16"]
    return _INSIDE.get(chip.name.split()[0], LINKS["PCIe 4 x16"])


def between_link(chip: Chip) -> Link:
    """Between machines, all assumptions: 400 Gbit/s for each GPU, half of that up to the A100.

    Machines with cards that are made for desktops share one port of 25 Gbit/s among eight.
    """
    family = chip.name.split()[0]
    if family == "RTX":
        return SHARED_PORT
    return INFINIBAND_200 if family in ("V100", "A100", "T4", "L4") else _IB


def product_flops(chip: Chip, precision: str, assumptions: Assumptions) -> float:
    """What matrix products of training reach, in FLOP/s. Raises ValueError for no known rate."""
    peak = chip.peak_flops(precision)
    measured = chip.measured_bf16_tflops if precision in ("bf16", "fp16") else None
    best = measured * 1e12 if measured else peak * assumptions.measured_over_peak
    return best * assumptions.matmul_share


def memory_bytes_per_s(chip: Chip, assumptions: Assumptions) -> float:
    """What element-wise kernels reach. Raises ValueError for a chip without known bandwidth."""
    if chip.bandwidth_tb_s is None:
        raise ValueError(f"The table has no memory bandwidth for {chip.name}.")
    return chip.bandwidth_tb_s * 1e12 * assumptions.bandwidth_share
