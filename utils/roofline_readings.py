"""What the rooflines say, in one sentence each.

How it works: the sentence is computed from the same objects that are drawn, so it cannot drift away
from the figure. What the table of chips lacks, or what makes a setting unreal (a model that does
not fit, a chip that only serves), is part of the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.measured import significant
from utils.roofline import Roofline, rounds_fp32
from utils.roofline_work import VECTOR

HELD_BYTES = 16  # weights, gradients, masters and Adam's averages per parameter, in any precision


def roofline_reading(
    new: Roofline,
    old: Roofline | None,
    model: str,
    config: GPTConfig,
    batch_size: int,
    precision: str,
    over: str,
) -> str:
    """Step time, speed-up, and where the speed-up comes from."""
    chip, shown = new.chip, new.precision.name
    missing = f"the table has no roofline of {chip.name} in {precision}, so this is {shown}: "
    start = missing if shown != precision else ""
    sequences = f"{batch_size} sequence{'s' * (batch_size > 1)}"
    text = f"{start}on {chip.name} a step of {model} in {shown} with {sequences} takes at least "
    text += milliseconds(new.step_s)
    if old is None:
        text += f"; the table has no {over} rate of it to compare with"
    else:
        text += f", {old.step_s / new.step_s:.2f} times as fast as in {over}"
        text += f": products gain {_gain(new, old, products=True):.1f} times, "
        text += f"all else gains {_gain(new, old, products=False):.2f} times"
    rest = _seconds(new, products=False) / new.step_s
    text += f", and all else is {100 * rest:.0f} % of the step"
    text += "".join(f"; {note}" for note in _notes(new, old, config))
    return f"{text[0].upper()}{text[1:]}."


def speed_up_reading(rows: Mapping[str, Mapping[str, float | None]], model: str) -> str:
    """The range of the speed-ups of chips by kind: GPUs for data centres, consumer cards, TPUs."""
    groups = {
        "consumer cards": [name for name in rows if name.startswith("RTX")],
        "TPUs, which multiply in bf16 anyway": [name for name in rows if name.startswith("TPU")],
    }
    placed = [name for names in groups.values() for name in names]
    groups = {"data-centre GPUs": [name for name in rows if name not in placed], **groups}
    texts = []
    for words, names in groups.items():
        gains = [rows[name]["bf16"] for name in names if rows[name]["bf16"]]
        if gains:
            texts.append(f"{min(gains):.1f} to {max(gains):.1f} times on {words}")
    return f"By the roofline, 16 bits make a step of {model} faster than fp32 {', '.join(texts)}."


def milliseconds(seconds: float) -> str:
    """E.g. "11.6 ms", or seconds from one second on."""
    return f"{significant(seconds)} s" if seconds >= 1 else f"{significant(1e3 * seconds)} ms"


def _notes(new: Roofline, old: Roofline | None, config: GPTConfig) -> list[str]:
    chip, notes = new.chip, []
    if chip.bf16_tflops is None and new.precision.product == "bf16":
        notes.append("its 16 bits are fp16")
    if old and rounds_fp32(chip) and old.precision.product == "fp32":
        notes.append("the chip multiplies fp32 values in bf16, so only bytes shrink")
    held_gb = HELD_BYTES * count_parameters(config).total / 1e9
    if chip.memory_gb and held_gb > chip.memory_gb:
        notes.append(
            f"but {HELD_BYTES} bytes per parameter are {significant(held_gb)} GB and the chip "
            f"holds {chip.memory_gb:g} GB"
        )
    if chip.use == "serves":
        notes.append("the chip is made to serve, not to train")
    return notes


def _seconds(line: Roofline, products: bool) -> float:
    """Of matrix products, or of everything else."""
    return sum(line.seconds(o) for o in line.operations if (o.format != VECTOR) == products)


def _gain(new: Roofline, old: Roofline, products: bool) -> float:
    return _seconds(old, products) / _seconds(new, products)
