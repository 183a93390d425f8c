"""Rows about full checkpointing: who published what, recorded runs, and rents by the pencil.

Left out: the runs themselves (utils.experiments.checkpointing), and selective checkpointing.
"""

from collections.abc import Iterable, Iterator

from utils.config import GPTConfig
from utils.costs import training_flops
from utils.predict_checkpoint import (
    largest_predicted_batch,
    predict_checkpointed_step,
    recomputed_flops,
)
from utils.prices import find_chip, price_spread
from utils.recorded import RecordedRun
from utils.techniques.segments import Plan, segments

CITED_HEADERS = ("technique", "saves", "costs", "source (read 2026-11-23)")
CITED = (
    ("selective, GPT-3", "70 % of activations", "2.7 % FLOPs", "arXiv 2205.05198, in a wiki"),
    ("full, per layer", "", "30 % of a layer's time", "NVIDIA Megatron-Bridge docs"),
    ("full", "", "about 20 % time", "Hugging Face docs, an older text"),
    ("segments, 1,000-layer ResNet", "48 to 7 GB, 85 %", "30 % time", "arXiv 1604.06174"),
)
RECORDED_HEADERS = ("device", "attention", "peak bytes", "FLOPs", "seconds")
RENT_HEADERS = ("chip", "$ per hour", "plain fits", "$ per 1e6 tokens", "checkpointed fits",
                "$ per 1e6 tokens")  # fmt: skip
SAVED_HEADERS = ("case", "plain", "checkpointed", "saved")
ASSUMED_MFU = 0.4  # of the plain step


def plain_and_full(config: GPTConfig) -> tuple[Plan, Plan]:
    """The plan that keeps everything, and the one that runs each block again alone."""
    return tuple(range(config.num_layers)), segments([1] * config.num_layers)


def saved_row(
    name: str, config: GPTConfig, batch_size: int, num_tokens: int = 0
) -> tuple[str, int, int, str]:
    """A row under SAVED_HEADERS: predicted peaks of whole steps with Adam."""
    plain, full = (
        predict_checkpointed_step(config, batch_size, plan, num_tokens).peak_bytes
        for plan in plain_and_full(config)
    )
    return name, plain, full, f"{1 - full / plain:.1%}"


def rent_row(chip_name: str, config: GPTConfig) -> tuple[object, ...]:
    """A row under RENT_HEADERS: what fits a chip in fp32, and a million tokens' rent.

    The cheapest on-demand price, TF32 products, and ASSUMED_MFU, which counts no FLOP twice: the
    second ones come on top.
    """
    chip, price = find_chip(chip_name), price_spread(chip_name, kind="on-demand").rows[0]
    tokens = config.context_length
    flops = training_flops(config, 1, tokens)
    cells: list[object] = []
    for plan in plain_and_full(config):
        fits = largest_predicted_batch(config, plan, int(chip.memory_gb * 1e9))
        done = (flops + recomputed_flops(config, 1, tokens, plan)) / tokens * 1e6
        hours = done / (ASSUMED_MFU * chip.peak_flops("tf32")) / 3600
        cells += [fits, f"${hours * price.usd_per_gpu_hour:.4f}" if fits else "-"]
    hour = f"{price.usd_per_gpu_hour:.2f} ({price.provider}, {price.date})"
    return chip_name, hour, *cells


def recorded_rows(runs: Iterable[RecordedRun]) -> Iterator[tuple[str, ...]]:
    """Rows under RECORDED_HEADERS: full checkpointing against none, where a run has both."""
    for run in runs:
        rows = {(row["attention"], row["plan"]): row for row in run.experiments["checkpointing"]}
        for (attention, plan), full in rows.items():
            plain = rows.get((attention, "none"))
            if plan == "full" and plain is not None:
                keys = ("peak_bytes", "flops", "seconds")
                yield run.label, attention, *(_change(plain[key], full[key]) for key in keys)


def _change(before: float | None, after: float | None) -> str:
    return f"{after / before - 1:+.0%}" if before and after else "-"
