"""What plans cost in dollars: one's own runs by electricity, recorded ones by a GPU's rent.

Left out: the runs themselves (checkpointing.py), and any rent but the median of the course's table.
"""

from collections.abc import Iterable

from utils.measured import measured
from utils.plots import usd_text
from utils.prices import ElectricityPrice, energy_kwh, price_spread
from utils.recorded import RecordedRun

EXPERIMENT = "checkpointing"
# What CUDA calls a chip, and its name in the table of prices.
PRICED = {"H100 80GB HBM3": "H100 SXM", "A100-SXM4-80GB": "A100 80GB", "H200": "H200"}
HEADERS = ("device", "attention", "plan", "peak MiB", "seconds", "largest batch", "tokens/s",
           "$ per 1e9 tokens")  # fmt: skip


LAPTOP_WATTS = 30  # assumed, as in lesson 00


def batch_row(tokens_per_s: float, price: ElectricityPrice) -> tuple[str, str]:
    """Measured tokens per second, and what a billion tokens cost in a laptop's electricity."""
    usd = energy_kwh(1e9 / tokens_per_s / 3600, LAPTOP_WATTS) * price.usd_per_kwh
    return measured(tokens_per_s), measured(usd_text(usd))


def recorded_rows(runs: Iterable[RecordedRun]) -> list[list[str]]:
    """One row under HEADERS for each plan of each run; what was not measured is "-"."""
    return [_row(run, row) for run in runs for row in run.experiments[EXPERIMENT]]


def tokens_per_s(row: dict) -> float | None:
    """Speed at the largest batch."""
    seconds = row.get("largest_batch_seconds")
    return row["largest_batch"] * row["num_tokens"] / seconds if seconds else None


def usd_per_billion_tokens(device: str, speed: float | None) -> float | None:
    """Rent at the median price of the chip, if the course has prices of it."""
    chip = next((chip for word, chip in PRICED.items() if word in device), None)
    if chip is None or not speed:
        return None
    return price_spread(chip).median / 3600 * 1e9 / speed


def _row(run: RecordedRun, row: dict) -> list[str]:
    speed, peak = tokens_per_s(row), row["peak_bytes"]
    numbers = (
        ("{:,.0f}", peak and peak / 2**20),
        ("{:.3g}", row["seconds"]),
        ("{:,d}", row["largest_batch"]),
        ("{:,.0f}", speed),
        ("{:,.2f}", usd_per_billion_tokens(run.device, speed)),
    )
    cells = [text.format(number) if number else "-" for text, number in numbers]
    return [run.device, row["attention"], row["plan"], *cells]
