"""Which gradients fp16 would lose, before and after a loss scale: shares, a picture, a scale.

How it works: a loss scale of 2**k only moves every exponent by k, so counts by exponent tell what
any scale does, without any arithmetic in fp16. Values on the edge of a bin are counted apart
(exactly 2**-25 is a tie and goes to 0, 65520 goes to inf), so the shares are exactly those of
`(gradient * scale).half()`. Collecting is in `utils.gradient_counts`, offered here too.

What is left out: scales that are no power of two. And what was not counted can overflow first:
only a run shows whether a chosen scale holds.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.gradient_counts import ExponentCounts as ExponentCounts
from utils.gradient_counts import activation_exponents as activation_exponents
from utils.gradient_counts import count_exponents as count_exponents
from utils.gradient_counts import gradient_exponents as gradient_exponents
from utils.gradient_counts import layer_of as layer_of
from utils.gradient_counts import merge as merge
from utils.measured import measured
from utils.plots import OKABE_ITO

ZERO_AT, SUBNORMAL_BELOW, LAST = -25, -14, 15  # exponents of fp16's window
THINNEST = 1e-4  # bins with a smaller share are not drawn: they would only stretch the axis
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Fp16Shares:
    """What fp16 makes of the nonzero values, as shares that add up to 1 (all 0 without any)."""

    zero: float  # rounded to 0: lost
    subnormal: float  # below 2**-14: kept with fewer bits
    normal: float
    overflow: float  # rounded to inf


def fp16_shares(counts: ExponentCounts, scale: float = 1.0) -> Fp16Shares:
    """What becomes of the values in fp16 once they are multiplied by `scale`, a power of two."""
    shift, total = _exponent_of(scale), max(counts.num_nonzero, 1)
    on_tie, at_top = counts.powers[ZERO_AT - shift], counts.tops[LAST - shift]
    edges = (-math.inf, ZERO_AT, SUBNORMAL_BELOW, LAST + 1, math.inf)
    zero, subnormal, normal, overflow = (
        sum(n for exponent, n in counts.counts.items() if start <= exponent + shift < stop)
        for start, stop in pairwise(edges)
    )
    parts = (zero + on_tie, subnormal - on_tie, normal - at_top, overflow + at_top)
    return Fp16Shares(*(part / total for part in parts))


def choose_scale(counts: ExponentCounts) -> float:
    """The largest power of two at which none of the counted values overflows in fp16."""
    if counts.num_not_finite:
        raise ValueError(
            f"{counts.num_not_finite:,} gradients are inf or NaN before any scaling: no scale "
            "helps, look for their cause."
        )
    if not counts.num_nonzero:
        raise ValueError("All gradients are 0: there is nothing to choose a scale for.")
    highest = max(counts.counts)
    return 2.0 ** (LAST - highest - (counts.tops[highest] > 0))


def draw_gradient_histogram(figure: Figure, counts: ExponentCounts, scale: float = 1.0) -> str:
    """Histogram over exponents with fp16's window, before and after a scale; returns its reading.

    The shares in the reading are marked as measured: they depend on the text and on the model.
    """
    shift, total, axes = _exponent_of(scale), max(counts.num_nonzero, 1), figure.subplots()
    shown = {e: 100 * n / total for e, n in counts.counts.items() if n >= THINNEST * total}
    left = min([ZERO_AT - 7, *shown])
    right = max([LAST + 9, *(e + 2 + max(shift, 0) for e in shown)])
    _draw_window(axes, left, right)
    styles = [("as they are", 0, {"color": "black", "linestyle": "--"})]
    if shift:
        filled = {"color": OKABE_ITO[0], "fill": True, "alpha": 0.6}
        styles.append((f"times {_power_text(shift)}", shift, filled))
    for label, moved, style in styles:
        heights = [shown.get(e - moved, 0.0) for e in range(left, right)]
        axes.stairs(heights, range(left, right + 1), label=label, linewidth=1.5, **style)
    axes.set(xlim=(left, right), xlabel="size of the gradient", ylabel="% of those not 0")
    axes.set_ylim(0, 1.25 * max(shown.values(), default=1.0))  # room for the names of the zones
    figure.legend(loc="outside lower center", ncols=2)
    return _reading(counts, scale)


def _draw_window(axes: Axes, left: float, right: float) -> None:
    """Name the four zones of fp16; lines and words, so that no zone is known by its shade alone."""
    zones = {
        "becomes 0": (left, ZERO_AT, "#dddddd"),
        "fewer bits": (ZERO_AT, SUBNORMAL_BELOW, "#f2f2f2"),
        "fp16, all bits": (SUBNORMAL_BELOW, LAST + 1, "white"),
        "inf": (LAST + 1, right, "#dddddd"),
    }
    top = axes.get_xaxis_transform()  # x in exponents, y as a share of the axes' height
    for name, (start, stop, shade) in zones.items():
        axes.axvspan(start, stop, color=shade, zorder=0)
        axes.axvline(start, color="black", linewidth=0.8, marker="")
        axes.text((start + stop) / 2, 0.97, name, transform=top, ha="center", va="top", fontsize=9)
    edges = [ZERO_AT, SUBNORMAL_BELOW, 0, LAST + 1]
    axes.set_xticks(edges, [_power_text(edge) for edge in edges])
    axes.grid(False)


def _power_text(exponent: int) -> str:
    return f"2{str(exponent).translate(SUPERSCRIPTS)}"


def _exponent_of(scale: float) -> int:
    fraction, exponent = math.frexp(scale)
    if fraction != 0.5:
        raise ValueError(f"The scale must be a power of two, such as 65536, not {scale}.")
    return exponent - 1


def _reading(counts: ExponentCounts, scale: float) -> str:
    reading = f"Of the nonzero gradients, fp16 without a scale {_in_words(fp16_shares(counts))}"
    if scale != 1:
        words = _in_words(fp16_shares(counts, scale))
        power = measured(_power_text(_exponent_of(scale)))  # may have been chosen from the counts
        reading += f"; times {power}, it {words}"
    if counts.num_not_finite:
        reading += f"; {measured(counts.num_not_finite)} are inf or NaN already"
    return reading + "."


def _in_words(shares: Fp16Shares) -> str:
    zero, subnormal, overflow = map(_percent, (shares.zero, shares.subnormal, shares.overflow))
    return measured(f"turns {zero} into 0, keeps {subnormal} with fewer bits, overflows {overflow}")


def _percent(share: float) -> str:
    """Two decimals, but 0 only for nothing at all."""
    return "less than 0.01 %" if 0 < share < 5e-5 else f"{100 * share:.2f} %" if share else "0 %"
