"""The explorer of lesson 08: GPUs, model, stage, precision, checkpointing against bytes per GPU.

How it works: `draw_bytes_per_gpu` predicts one step (utils.predict_sharded). On the left stand the
bytes by category for the chosen number of GPUs and its neighbours, on the right the peak for every
number, with the memory of a chip, and with what was measured here if such a setting was run.
Left out: everything that the prediction leaves out; running anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.config import PRESETS, GPTConfig
from utils.explorer import Explorer
from utils.hardware import find_chip, load_chips
from utils.plots import OKABE_ITO, bytes_axis, bytes_text
from utils.predict_sharded import (
    PRECISIONS,
    STAGES,
    ShardedBytes,
    ShardedPrediction,
    predict_sharded,
    smallest_number_of_gpus,
)

POWERS = range(11)  # 1 to 1,024 GPUs
GB = 1e9  # chips are sold in decimal gigabytes
MODEL_COLOUR, CHOSEN, MEASURED = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2]


@dataclass(frozen=True)
class MeasuredPeak:
    """The peak of one rank's step as the memory meter saw it on this machine, in exact bytes."""

    model: str  # its name in the explorer
    stage: str
    num_ranks: int
    batch_size: int  # sequences per rank
    peak_bytes: int
    precision: str = "fp32"
    checkpointing: bool = False


def draw_bytes_per_gpu(
    figure: Figure,
    log2_gpus: int,
    model: str,
    stage: str,
    precision: str,
    checkpointing: bool,
    batch_size: int,
    chip: str,
    models: Mapping[str, GPTConfig] = PRESETS,
    measured: Sequence[MeasuredPeak] = (),
) -> str:
    """Bytes per GPU by category, and the peak from 1 to 1,024 GPUs beside a chip's memory."""
    if precision == "bf16, fp32 shards" and stage in ("DDP", "ZeRO-1", "ZeRO-2"):
        words = f"{stage} keeps whole weights, so they have one precision: choose fp32 or bf16."
        figure.text(0.5, 0.5, words, ha="center", va="center")
        return words
    config, memory_gb = models[model], find_chip(chip).memory_gb
    steps = {
        power: predict_sharded(config, stage, 2**power, batch_size, precision, checkpointing)
        for power in POWERS
    }
    bars, curve = figure.subplots(1, 2, width_ratios=(4, 3))
    near = [power for power in POWERS if abs(power - log2_gpus) <= 1]
    names = {power: f"{2**power:,}" + " (chosen)" * (power == log2_gpus) for power in near}
    draw_categories(bars, {name: steps[power].peak for power, name in names.items()})
    bars.set(title=f"{stage}, {precision}: the peak", xlabel="GPUs")
    figure.legend(*bars.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    memory_bytes = memory_gb * GB
    setting = (model, stage, batch_size, precision, checkpointing)
    here = [each for each in measured if _setting_of(each) == setting]
    _draw_curve(curve, steps, log2_gpus, memory_bytes, here)
    fewest = smallest_number_of_gpus(
        config, stage, memory_bytes, batch_size, precision, checkpointing
    )
    return _reading(2**log2_gpus, model, stage, steps[log2_gpus], here) + _fits(
        fewest, chip, memory_gb
    )


def draw_categories(axes: Axes, columns: Mapping[str, ShardedBytes]) -> None:
    """One stacked bar a column, in the legend's order from the bottom up."""
    bottoms = [0] * len(columns)
    for number, category in enumerate(ShardedBytes().by_category()):
        sizes = [each.by_category()[category] for each in columns.values()]
        axes.bar(
            list(columns), sizes, bottom=bottoms, label=category, color=OKABE_ITO[number]
        )
        bottoms = [low + size for low, size in zip(bottoms, sizes, strict=True)]
    bytes_axis(axes)
    axes.grid(False, axis="x")


def _draw_curve(
    axes: Axes,
    steps: Mapping[int, ShardedPrediction],
    log2_gpus: int,
    memory_bytes: float,
    here: Sequence[MeasuredPeak],
) -> None:
    peaks = {power: step.peak.total for power, step in steps.items()}
    axes.plot(list(peaks), list(peaks.values()), color=MODEL_COLOUR, label="predicted")
    axes.plot(
        [log2_gpus], [peaks[log2_gpus]], "s", color=CHOSEN, markersize=9, label="chosen"
    )
    if here:
        places = [each.num_ranks.bit_length() - 1 for each in here]
        axes.plot(
            places, [each.peak_bytes for each in here], "D", color=MEASURED, markersize=6,
            label="measured",
        )  # fmt: skip
    highest = max(peaks.values())
    if memory_bytes < 3 * highest:  # a line far above would flatten the curve
        axes.axhline(memory_bytes, color="black", linestyle="--", marker="", label="chip")
    # One GPU would need so much that nothing else could be told apart.
    top = min(highest, 3 * max(memory_bytes, peaks[log2_gpus]))
    axes.set(title="From 1 to 1,024", xlabel="GPUs", ylim=(0, 1.1 * top))
    axes.set_xticks(POWERS[::2], [f"{2**power:,}" for power in POWERS[::2]])
    bytes_axis(axes)
    axes.legend(fontsize=8)


def _setting_of(run: MeasuredPeak) -> tuple[str, str, int, str, bool]:
    return run.model, run.stage, run.batch_size, run.precision, run.checkpointing


def _reading(
    num_gpus: int, model: str, stage: str, step: ShardedPrediction, here: Sequence[MeasuredPeak]
) -> str:
    found = [run for run in here if run.num_ranks == num_gpus]
    seen = (
        f" (measured here: {found[0].peak_bytes:,} bytes, predicted: {step.peak.total:,})"
        if found
        else ""
    )
    where = f"{num_gpus:,} GPUs each hold" if num_gpus > 1 else "1 GPU holds"
    return (
        f"With {stage}, {where} {bytes_text(step.held.total)} of weights, gradients and optimizer "
        f"state for {model}, and the step peaks at {bytes_text(step.peak.total)}{seen}; "
    )


def _fits(fewest: int | None, chip: str, memory_gb: float) -> str:
    if fewest is None:
        return f"no number of {chip} ({memory_gb:g} GB) is enough for it."
    if fewest == 1:
        return f"one {chip} ({memory_gb:g} GB) is enough for it."
    return f"the smallest number of {chip} ({memory_gb:g} GB) on which it fits is {fewest:,}."


def bytes_per_gpu_explorer(
    models: Mapping[str, GPTConfig] = PRESETS,
    measured: Sequence[MeasuredPeak] = (),
    model: str = "gpt2-1.5b",
    chip: str = "H100 SXM",
) -> Explorer:
    """Bytes per GPU of sharded training; `measured` are points of runs on this machine.

    Raises ValueError for a measured point of a model that is not among `models`, or of a number of
    ranks that is no power of two.
    """
    for run in measured:
        if run.model not in models or run.num_ranks.bit_count() != 1:
            raise ValueError(
                f"{run} cannot be shown: its model must be one of {', '.join(models)}, and its "
                "number of ranks a power of two."
            )
    chips = [each.name for each in load_chips() if each.memory_gb and each.use == "trains"]
    return Explorer(
        "What one GPU of many has to hold",
        partial(draw_bytes_per_gpu, models=models, measured=measured),
        figsize=(9.0, 3.8),
        log2_gpus=widgets.SelectionSlider(
            options=[(f"{2**power:,}", power) for power in POWERS], value=3, description="GPUs"
        ),
        model=widgets.Dropdown(options=list(models), value=model, description="model"),
        stage=widgets.Dropdown(options=STAGES, value="FSDP", description="stage"),
        precision=widgets.Dropdown(
            options=list(PRECISIONS), value="bf16", description="precision"
        ),
        checkpointing=widgets.Checkbox(value=False, description="run blocks again in backward"),
        batch_size=widgets.IntSlider(value=4, min=1, max=64, description="sequences per GPU"),
        chip=widgets.Dropdown(options=chips, value=chip, description="chip"),
    )
