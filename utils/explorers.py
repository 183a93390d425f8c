"""The explorers of the lessons: pure drawing functions, and the sliders that call them.

Each `draw_...` fills a figure from plain values and returns the sentence that reads it, so tests
call it without a browser. Each `..._explorer` binds it to controls, and to the learner's own
measurements where there are some.
"""

from collections.abc import Mapping
from functools import partial

import ipywidgets as widgets
from matplotlib.figure import Figure

from utils.config import PRESETS
from utils.costs import RECIPES, gpu_hours, rule_of_thumb_flops
from utils.explorer import Explorer
from utils.hardware import find_chip
from utils.measured import measured
from utils.plots import OKABE_ITO, bytes_axis, bytes_text, usd_axis, usd_text
from utils.predict import block_activation_bytes, head_activation_bytes

PALE = "#949494"  # beside the chosen colour, and still 3:1 against white
SHOWN_CHIPS = ("RTX 4090", "A100 80GB", "H200")
SIZES_BILLIONS = (0.124, 1.5, 7, 13, 70)
GB = 1e9  # chips are sold in decimal gigabytes


def draw_bargain(
    figure: Figure,
    batch_size: int,
    peak_bytes: Mapping[int, int],
    tokens_per_s: Mapping[int, float],
) -> str:
    """Speed and memory of each batch size side by side, the chosen one in colour."""
    speed, memory = figure.subplots(1, 2)
    for axes, values, colour in ((speed, tokens_per_s, 0), (memory, peak_bytes, 1)):
        colours = [OKABE_ITO[colour] if size == batch_size else PALE for size in values]
        axes.bar([str(size) for size in values], list(values.values()), color=colours)
        axes.set_xlabel("sequences in a batch")
    speed.set(title="Speed", ylabel="tokens per second")
    memory.set(title="Peak memory")
    bytes_axis(memory)
    rate = measured(tokens_per_s[batch_size], "tokens/s", digits=2)
    return f"A batch of {batch_size} trains {rate} and peaks at {peak_bytes[batch_size]:,} bytes."


def batch_explorer(
    peak_bytes: Mapping[int, int], tokens_per_s: Mapping[int, float]
) -> Explorer:
    """Speed against memory, from the learner's own runs."""
    draw = partial(draw_bargain, peak_bytes=peak_bytes, tokens_per_s=tokens_per_s)
    sizes = list(peak_bytes)
    control = widgets.SelectionSlider(options=sizes, value=sizes[-2], description="sequences")
    return Explorer("The batch: speed against memory", draw, batch_size=control)


def draw_recipe(figure: Figure, recipe_name: str, billions: float) -> str:
    """What one recipe holds for a model of so many billion parameters, against three chips."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == recipe_name)
    parts = {
        "weights": recipe.weight_bytes,
        "gradients": recipe.gradient_bytes,
        "fp32 master": recipe.master_bytes,
        "optimizer": recipe.optimizer_bytes,
    }
    axes, left = figure.subplots(), 0.0
    for (name, size), colour in zip(parts.items(), OKABE_ITO, strict=False):
        width = size * billions * GB
        axes.barh([0], [width], left=left, color=colour, label=f"{name}: {size} bytes")
        left += width
    memories = {name: find_chip(name).memory_gb * GB for name in SHOWN_CHIPS}
    for style, name in zip(("--", "-.", ":"), SHOWN_CHIPS, strict=True):
        axes.axvline(memories[name], color="black", linestyle=style, label=f"{name} holds")
    axes.set(yticks=[], ylim=(-0.5, 0.5), xlim=(0, 1.15 * max(left, memories[SHOWN_CHIPS[-1]])))
    bytes_axis(axes, "x")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=3)
    fits = [name for name in SHOWN_CHIPS if left <= memories[name]]
    where = f"it fits {', '.join(fits)}" if fits else "it fits none of the three"
    bill = f"{recipe.bytes_per_parameter} bytes times {billions:g} billion is {bytes_text(left)}"
    return f"{recipe.name}: {bill}; {where}."


def recipe_explorer() -> Explorer:
    """Bytes that stay, by recipe and size."""
    names = [recipe.name for recipe in RECIPES]
    return Explorer(
        "Bytes that stay, before a single activation",
        draw_recipe,
        billions=widgets.FloatSlider(
            value=7, min=0.5, max=70, step=0.5, description="billion parameters"
        ),
        recipe_name=widgets.Dropdown(options=names, value=names[4], description="recipe"),
    )


def draw_activations(figure: Figure, preset: str, batch_size: int, log2_tokens: int) -> str:
    """Saved activations of a 16-bit model by context length, explicit against fused attention."""
    axes, config, tokens = figure.subplots(), PRESETS[preset], 2**log2_tokens
    lengths = [2**power for power in range(7, 15)]
    totals: dict[str, float] = {}
    for name in ("explicit", "fused"):
        per_length = {t: _activations_16_bit(preset, name, batch_size, t) for t in lengths}
        totals[name] = per_length[tokens]
        axes.plot(lengths, list(per_length.values()), label=f"{name} attention")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set(xlabel="tokens in a sequence", xticks=lengths, xticklabels=lengths)
    axes.set(ylabel="saved for backward", title=f"{preset}, {batch_size} sequence(s), 16 bits")
    axes.axvline(tokens, color=PALE, zorder=0)
    bytes_axis(axes)
    axes.legend()
    ratio = totals["explicit"] / totals["fused"]
    return (
        f"{config.num_layers} layers keep {bytes_text(totals['explicit'])} with explicit "
        f"attention at {tokens:,} tokens, {ratio:.1f} times as much as with fused attention."
    )


def _activations_16_bit(preset: str, attention: str, batch_size: int, num_tokens: int) -> int:
    fields = {**vars(PRESETS[preset]), "attention": attention, "num_kv_heads": None}
    config = type(PRESETS[preset])(**fields)
    block = block_activation_bytes(config, batch_size, num_tokens, value_bytes=2)
    head = head_activation_bytes(config, batch_size, num_tokens, value_bytes=2)
    return config.num_layers * block + head


def activation_explorer() -> Explorer:
    """Bytes that come and go, by model, batch and context."""
    return Explorer(
        "Bytes that come and go, in 16 bits",
        draw_activations,
        log2_tokens=widgets.SelectionSlider(
            options=[(f"{2**p:,}", p) for p in range(7, 15)], value=12, description="tokens"
        ),
        batch_size=widgets.IntSlider(value=1, min=1, max=32, description="sequences"),
        preset=widgets.Dropdown(
            options=list(PRESETS), value="llama2-7b-shape", description="model"
        ),
    )


def draw_dollars(
    figure: Figure, usd_per_hour: float, mfu_percent: int, tokens_billions: int
) -> str:
    """Rent of five model sizes on H100s at one price, utilisation and number of tokens."""
    axes = figure.subplots()
    flops = [rule_of_thumb_flops(n * 1e9, tokens_billions * 1e9) for n in SIZES_BILLIONS]
    hours = [gpu_hours(f, 989e12, mfu_percent / 100) for f in flops]
    dollars = [usd_per_hour * h for h in hours]
    axes.plot(SIZES_BILLIONS, dollars)
    axes.set(xscale="log", yscale="log", xlabel="billion parameters", ylabel="rent")
    axes.set_xticks(SIZES_BILLIONS, [f"{size:g}" for size in SIZES_BILLIONS])
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_ylim(1, 1e9)
    usd_axis(axes)
    for number, (size, usd) in enumerate(zip(SIZES_BILLIONS, dollars, strict=True)):
        above = number != 3  # 7 and 13 billion stand close together
        axes.annotate(
            usd_text(float(f"{usd:.3g}")),
            (size, usd),
            xytext=(0, 7 if above else -7),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=9,
        )
    return (
        f"7 billion parameters on {tokens_billions:,} billion tokens take {hours[2]:,.0f} GPU "
        f"hours at {mfu_percent} % MFU, {usd_text(dollars[2])} at ${usd_per_hour:.2f} an hour."
    )


def dollars_explorer(usd_per_hour: float = 3.99) -> Explorer:
    """Dollars by price, MFU and tokens."""
    return Explorer(
        "Dollars to train on H100s (6ND, bf16 peak 989 TFLOP/s)",
        draw_dollars,
        usd_per_hour=widgets.FloatSlider(
            value=usd_per_hour, min=1, max=12.5, step=0.01, description="$ per GPU hour"
        ),
        mfu_percent=widgets.IntSlider(value=40, min=5, max=60, description="MFU in %"),
        tokens_billions=widgets.IntSlider(
            value=140, min=1, max=2000, description="billion tokens"
        ),
    )
