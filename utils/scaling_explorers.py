"""The explorer of scaling: GPUs, model, batch, network and buckets against time and dollars.

How it works: `draw_scaling` simulates one data-parallel step on H100s (utils.simulate) and draws
its two streams, the communication that nothing hides in colour and hatched, beside the efficiency
at every number of GPUs. `draw_timeline` draws the streams of any timeline.
Left out: everything the simulator leaves out; the utilisation of compute is an assumption.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.config import PRESETS
from utils.explorer import Explorer
from utils.hardware import find_chip
from utils.measured import significant
from utils.plots import OKABE_ITO, bytes_text, usd_text
from utils.prices import price_spread
from utils.simulate.buckets import MIB
from utils.simulate.links import LINKS
from utils.simulate.scaling import ScalingPoint, Setup, simulate_step
from utils.simulate.timeline import COMMUNICATION, COMPUTE, Timeline

CHIP = "H100 SXM"
POWERS = range(13)  # 1 to 4,096 GPUs
SHOWN_POWERS, LABELLED_POWERS = POWERS[::2], POWERS[::4]
NETWORK_GBIT_S = (1, 10, 25, 50, 100, 200, 400, 800)
BUCKET_MIB = (1, 5, 25, 100, 400, 1600)
FORWARD, EXPOSED, HIDDEN, BACKWARD = (OKABE_ITO[place] for place in (0, 1, 2, 5))

Interval = tuple[float, float]


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Intervals in time, with those that touch drawn as one: a thousand bars are slow to draw."""
    result: list[Interval] = []
    for start_s, end_s in intervals:
        if end_s <= start_s:
            continue
        if result and start_s <= result[-1][1]:
            result[-1] = (result[-1][0], max(end_s, result[-1][1]))
        else:
            result.append((start_s, end_s))
    return result


def draw_timeline(axes: Axes, timeline: Timeline) -> None:
    """The two streams of a step in milliseconds; exposed communication is hatched."""
    forward = [(s.start_s, s.end_s) for s in timeline.on(COMPUTE) if "backward" not in s.task.name]
    backward = [(s.start_s, s.end_s) for s in timeline.on(COMPUTE) if "backward" in s.task.name]
    sending = [(s.start_s, s.end_s) for s in timeline.on(COMMUNICATION)]
    lanes = (
        (1, forward, FORWARD, "forward", ""),
        (1, backward, BACKWARD, "backward", ""),
        (0, sending, HIDDEN, "hidden", ""),
        (0, timeline.gaps(), EXPOSED, "exposed", "////"),
    )
    for lane, intervals, colour, label, hatch in lanes:
        bars = [(1e3 * start_s, 1e3 * (end_s - start_s)) for start_s, end_s in merged(intervals)]
        axes.broken_barh(
            bars, (lane - 0.35, 0.7), facecolor=colour, hatch=hatch, edgecolor="white",
            linewidth=0, label=label,
        )  # fmt: skip
    axes.set(yticks=[0, 1], yticklabels=["sends", "computes"], ylim=(-0.5, 1.5))
    axes.set(xlabel="milliseconds", xlim=(0, 1e3 * timeline.total_s or 1))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(False)


def draw_scaling(
    figure: Figure,
    log2_gpus: int,
    preset: str,
    batch_per_gpu: int,
    network_gbit_s: int,
    bucket_mib: int,
    usd_per_gpu_hour: float = 3.99,
    utilisation: float = 0.5,
) -> str:
    """One step's streams, and the efficiency from 1 to 4,096 GPUs at the same batch per GPU."""
    setup = _setup(preset, network_gbit_s, bucket_mib, utilisation)
    powers = sorted({*SHOWN_POWERS, log2_gpus})
    points = {power: simulate_step(setup, 2**power, batch_per_gpu) for power in powers}
    point = points[log2_gpus]
    streams, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_timeline(streams, point.timeline)
    streams.set_title(f"One step on {point.num_gpus:,} GPU{'s' * (point.num_gpus > 1)}")
    figure.legend(*streams.get_legend_handles_labels(), loc="outside lower left", ncols=4)
    # Powers on a plain axis: a logarithmic one costs a fifth of the redraw.
    curve.set_xticks(LABELLED_POWERS, [f"{2**power:,}" for power in LABELLED_POWERS])
    curve.set(title="Efficiency", xlabel="GPUs", ylabel="%", ylim=(0, 105), yticks=[0, 50, 100])
    curve.plot(powers, [100 * p.efficiency for p in points.values()])
    curve.plot([log2_gpus], [100 * point.efficiency], "o", color=EXPOSED, markersize=10)
    return _reading(setup, preset, point, usd_per_gpu_hour)


def _setup(preset: str, network_gbit_s: int, bucket_mib: int, utilisation: float) -> Setup:
    network = LINKS["InfiniBand 400 Gbit/s"]
    bucket_bytes = bucket_mib * MIB
    return Setup(
        PRESETS[preset],
        find_chip(CHIP).peak_flops() * utilisation,
        between=replace(network, bytes_per_s=network_gbit_s * 1e9 / 8),
        first_bytes=min(MIB, bucket_bytes),
        bucket_bytes=bucket_bytes,
    )


def _reading(setup: Setup, preset: str, point: ScalingPoint, usd_per_gpu_hour: float) -> str:
    timeline, several = point.timeline, point.num_gpus > 1
    usd = usd_text(float(f"{point.usd_per_billion_tokens(usd_per_gpu_hour):.3g}"))
    messages = len(timeline.on(COMMUNICATION)) if several else 0
    memory_gb = find_chip(CHIP).memory_gb
    fits = setup.replica_bytes <= memory_gb * 1e9
    room = "" if fits else (
        f"; but a replica holds {bytes_text(setup.replica_bytes)}, and an H100 only "
        f"{memory_gb:.0f} GB"
    )  # fmt: skip
    return (
        f"{point.num_gpus:,} GPU{'s train' if several else ' trains'} {preset} at "
        f"{100 * point.efficiency:.1f} % efficiency: {_time_text(timeline.exposed_s)} of a step "
        f"of {_time_text(point.step_s)} are exposed communication ({messages:,} messages), and a "
        f"billion tokens cost {usd}{room}."
    )


def _time_text(seconds: float) -> str:
    return f"{significant(seconds)} s" if seconds >= 1 else f"{significant(1e3 * seconds)} ms"


def scaling_explorer(
    usd_per_gpu_hour: float | None = None, utilisation: float = 0.5
) -> Explorer:
    """Scaling of data parallelism; the price is the median of the table unless you give yours."""
    usd = price_spread(CHIP).median if usd_per_gpu_hour is None else usd_per_gpu_hour
    draw = partial(draw_scaling, usd_per_gpu_hour=usd, utilisation=utilisation)
    gpus = [(f"{2**power:,}", power) for power in POWERS]
    return Explorer(
        f"Data parallelism on H100s at {100 * utilisation:.0f} % of peak (assumed), "
        f"fp32 gradients, ${usd:.2f} per GPU-hour",
        draw,
        figsize=(8.4, 3.4),
        log2_gpus=widgets.SelectionSlider(options=gpus, value=6, description="GPUs"),
        preset=widgets.Dropdown(options=list(PRESETS), value="gpt2-1.5b", description="model"),
        batch_per_gpu=widgets.IntSlider(
            value=4, min=1, max=64, description="sequences per GPU"
        ),
        network_gbit_s=widgets.SelectionSlider(
            options=NETWORK_GBIT_S, value=100, description="network, Gbit/s per GPU"
        ),
        bucket_mib=widgets.SelectionSlider(
            options=BUCKET_MIB, value=25, description="bucket, MiB"
        ),
    )
