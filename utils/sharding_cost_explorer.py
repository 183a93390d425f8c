"""The explorer of sharding: DDP, ZeRO-2, FSDP and YaFSDP on the same A100s, in time and dollars.

How it works: `draw_sharding_cost` simulates a step of each method (utils.simulate.sharding_methods)
and draws what computes and, hatched, the communication that nothing hides. A method whose weights,
gradients and optimizer exceed the chip's memory is drawn pale, with what it would need.
Left out: everything the simulator leaves out; "computes" includes FSDP's copies of gradients.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from utils.explorer import Explorer
from utils.measured import significant
from utils.plots import OKABE_ITO, usd_text
from utils.prices import price_spread
from utils.simulate.llama import find_llama, load_llama_shapes
from utils.simulate.published_fit import CHIP
from utils.simulate.sharding_methods import MethodStep, chip_memory_bytes, sharding_steps
from utils.simulate.yafsdp_published import calibrate_published
from utils.yafsdp_table import readings

GPUS = tuple(2**power for power in range(3, 11))
SEQUENCE_LENGTHS = (1024, 2048, 4096, 8192, 16384)
NODE_GB_S = (10, 25, 50, 100, 200, 400)
COMPUTES, EXPOSED = OKABE_ITO[0], OKABE_ITO[1]


def draw_sharding_cost(
    figure: Figure,
    model: str,
    num_gpus: int,
    sequence_length: int,
    node_gb_s: float,
    usd_per_gpu_hour: float = 1.79,
) -> str:
    """Seconds of one step, and dollars per billion tokens, of four methods."""
    fit = replace(calibrate_published(), node_bytes_per_s=node_gb_s * 1e9)
    steps = sharding_steps(find_llama(model), num_gpus, sequence_length, fit)
    times, dollars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw_times(times, steps)
    usd = [step.usd_per_billion_tokens(usd_per_gpu_hour) for step in steps]
    _draw_dollars(dollars, steps, usd)
    waits = Patch(facecolor=EXPOSED, hatch="////", edgecolor="white", linewidth=0)
    words = ("computes", "communication that nothing hides")
    figure.legend([Patch(color=COMPUTES), waits], words, loc="outside lower left", ncols=2)
    return _reading(model, steps, dict(zip([s.method for s in steps], usd, strict=True)))


def _draw_times(axes: Axes, steps: list[MethodStep]) -> None:
    names = [step.method for step in steps]
    working = [step.timeline.total_s - step.timeline.exposed_s for step in steps]
    exposed = [step.timeline.exposed_s for step in steps]
    bars = axes.barh(names, working, color=COMPUTES)
    waits = axes.barh(
        names, exposed, left=working, color=EXPOSED, hatch="////", edgecolor="white", linewidth=0
    )
    for step, bar, wait in zip(steps, bars, waits, strict=True):
        text = f" {significant(step.timeline.total_s)} s"
        if not step.fits:
            bar.set_alpha(0.35)
            wait.set_alpha(0.35)
            text += f", needs {_gb(step.memory_bytes)}"
        axes.text(step.timeline.total_s, bar.get_y() + 0.4, text, va="center", fontsize=8)
    axes.set(title="Seconds of a step", xlim=(0, 1.55 * max(s.timeline.total_s for s in steps)))
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(False, axis="y")


def _draw_dollars(axes: Axes, steps: list[MethodStep], usd: list[float]) -> None:
    bars = axes.barh([step.method for step in steps], usd, color=OKABE_ITO[2])
    for step, bar, price in zip(steps, bars, usd, strict=True):
        bar.set_alpha(1.0 if step.fits else 0.35)
        axes.text(price, bar.get_y() + 0.4, f" {_usd(price)}", va="center", fontsize=8)
    axes.set(title="Dollars per billion tokens", xlim=(0, 1.4 * max(usd)))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.grid(False, axis="y")


def _reading(model: str, steps: list[MethodStep], usd: dict[str, float]) -> str:
    fsdp = next(step for step in steps if step.method == "FSDP")
    total_s = {step.method: step.timeline.total_s for step in steps}
    times = {method: f"{significant(seconds)} s" for method, seconds in total_s.items()}
    saved = readings(total_s["FSDP"], total_s["YaFSDP"]).less_time_percent
    exposed = 100 * (1 - fsdp.timeline.efficiency)
    full = [f"{s.method} ({_gb(s.memory_bytes)})" for s in steps if not s.fits]
    limit = _gb(chip_memory_bytes())
    room = f"; too large for {limit}: {', '.join(full)}" if full else f"; all fit {limit}"
    return (
        f"{model} on {fsdp.num_gpus:,} GPUs, {fsdp.tokens // fsdp.num_gpus:,} tokens each: a step "
        f"of FSDP takes {times['FSDP']}, {exposed:.0f} % of it exposed, and a billion tokens "
        f"cost {_usd(usd['FSDP'])}; YaFSDP takes {times['YaFSDP']} and {_usd(usd['YaFSDP'])}, "
        f"{saved:.1f} % less; DDP would take {times['DDP']}, ZeRO-2 {times['ZeRO-2']}{room}."
    )


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.0f} GB"


def _usd(dollars: float) -> str:
    rounded = float(f"{dollars:.3g}")
    return usd_text(rounded) if rounded < 100 else f"${rounded:,.0f}"


def sharding_cost_explorer(usd_per_gpu_hour: float | None = None) -> Explorer:
    """Four methods on A100s; the price is the median of the table unless you give yours."""
    usd = price_spread(CHIP).median if usd_per_gpu_hour is None else usd_per_gpu_hour
    fit = calibrate_published()
    fitted = round(fit.node_bytes_per_s / 1e9)
    networks = [(f"{rate:,}", rate) for rate in NODE_GB_S] + [(f"{fitted} (fitted)", fitted)]
    return Explorer(
        f"Sharding on A100s at {100 * fit.utilisation:.0f} % of peak (fitted to YaFSDP's table), "
        f"one sequence per GPU, ${usd:.2f} per GPU-hour",
        partial(draw_sharding_cost, usd_per_gpu_hour=usd),
        figsize=(8.4, 3.2),
        model=widgets.Dropdown(
            options=[shape.model for shape in load_llama_shapes()], description="model"
        ),
        num_gpus=widgets.SelectionSlider(options=GPUS, value=64, description="GPUs"),
        sequence_length=widgets.SelectionSlider(
            options=SEQUENCE_LENGTHS, value=2048, description="tokens per GPU"
        ),
        node_gb_s=widgets.SelectionSlider(
            options=sorted(networks, key=lambda each: each[1]), value=fitted,
            description="network, GB/s per node",
        ),
    )  # fmt: skip
