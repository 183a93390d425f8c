"""The look of every figure of the course.

How it works: importing this module sets matplotlib's defaults: white background, light grid, title
on the left, and Okabe-Ito colours, dark enough for a line (contrast 3 with white), each with its
own marker and line style, so that no line is known by its colour alone. The defaults are set once,
not switched per figure: matplotlib reads many of them late, and widgets draw in another thread.

Left out: a dark variant. A figure stays opaque white in a dark JupyterLab, where it is readable.
"""

from __future__ import annotations

import matplotlib
from cycler import cycler
from matplotlib.colors import to_hex, to_rgb
from matplotlib.typing import ColorType

# Okabe and Ito, "Color Universal Design", 2008. Yellow is last: it is faint on white.
OKABE_ITO = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # green
    "#CC79A7",  # purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",  # black
    "#F0E442",  # yellow
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINE_STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1)), "--", ":")
_INK = "#222222"


def contrast(one: ColorType, other: ColorType) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2, "contrast ratio"); text needs 4.5."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def contrast_with_white(color: ColorType) -> float:
    """Contrast ratio with white, 1 to 21; text needs 4.5, a line or a marker 3."""
    return contrast(color, "white")


def text_color(color: ColorType) -> tuple[float, float, float]:
    """Return the colour, darkened until text in it is readable on white."""
    return _darkened(color, 4.5)


def line_color(color: ColorType) -> tuple[float, float, float]:
    """Return the colour, darkened until a line in it is seen on white."""
    return _darkened(color, 3.0)


def _darkened(color: ColorType, least: float) -> tuple[float, float, float]:
    red, green, blue = to_rgb(color)
    while contrast_with_white((red, green, blue)) < least:
        red, green, blue = red * 0.95, green * 0.95, blue * 0.95
    return red, green, blue


def _luminance(color: ColorType) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Lines are thinner than bars: orange, sky blue and yellow are darkened for them.
LINE_COLORS = tuple(to_hex(line_color(color)).upper() for color in OKABE_ITO)

matplotlib.rcParams.update(
    {
        "axes.prop_cycle": cycler(color=LINE_COLORS, marker=MARKERS, linestyle=LINE_STYLES),
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 11,
        "axes.titlepad": 10,
        "axes.labelsize": 10,
        "axes.labelcolor": _INK,
        "axes.edgecolor": "#888888",
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#e2e2e2",
        "grid.linewidth": 0.8,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "text.color": _INK,
        "lines.linewidth": 2.0,
        "lines.markersize": 5.5,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "savefig.facecolor": "white",
        "savefig.transparent": False,
        "image.cmap": "cividis",
    }
)
