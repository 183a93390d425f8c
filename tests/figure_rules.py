"""Rules for a figure that everybody can read: sentences, an empty list when all is well.

How it works: the artists of a drawn figure are asked for size, colour, marker and line style.
Contrast is WCAG's: 4.5 for text, 3 for a line or a marker, against white or what lies below.

Left out: whether bars that touch differ enough, which hatches and numbers in them take care of.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from utils.plot_style import contrast, contrast_with_white

MIN_POINTS, MIN_TEXT_CONTRAST, MIN_LINE_CONTRAST = 8, 4.5, 3
NO_MARKER = ("", " ", "None", "none", None)


def figure_problems(figure: Figure) -> list[str]:
    """All that a reader with weak eyes, or without colours, would miss in a drawn figure."""
    found = [] if to_rgba(figure.get_facecolor()) == (1, 1, 1, 1) else ["the ground is not white"]
    found += [sentence for text in texts_of(figure) for sentence in text_problems(figure, text)]
    for axes in figure.axes:
        found += line_problems(axes)
    return found


def texts_of(figure: Figure) -> Iterator[Text]:
    """Every text that is shown, of axes, ticks and legends too."""
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            yield text


def text_problems(figure: Figure, text: Text) -> list[str]:
    """A text is at least 8 points tall and stands out from what lies below it."""
    words, found = text.get_text().strip()[:40], []
    if text.get_fontsize() < MIN_POINTS:
        found.append(f"`{words}` is {text.get_fontsize():g} points tall; {MIN_POINTS} are needed")
    ratio = contrast(text.get_color(), ground_of(figure, text))
    if ratio < MIN_TEXT_CONTRAST:
        found.append(f"`{words}` has a contrast of {ratio:.1f}; {MIN_TEXT_CONTRAST} is needed")
    return found


def ground_of(figure: Figure, text: Text) -> tuple[float, float, float]:
    """The colour below a text: its box's, else that of the last patch at its middle, else white."""
    if text.get_bbox_patch() is not None:
        return to_rgb(text.get_bbox_patch().get_facecolor())
    box = text.get_window_extent()
    middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
    ground = (1.0, 1.0, 1.0)
    for axes in figure.axes:
        for patch in sorted(axes.patches, key=lambda each: each.get_zorder()):
            *color, alpha = to_rgba(patch.get_facecolor())
            if alpha and patch.get_visible() and patch.contains_point(middle, radius=0):
                ground = tuple(
                    alpha * c + (1 - alpha) * g for c, g in zip(color, ground, strict=True)
                )
    return ground


def line_problems(axes: Axes) -> list[str]:
    """Lines that have a name stand out from white and are told apart without their colours."""
    named = [line for line in axes.get_lines() if is_named(line)]
    found = [
        f"the line `{line.get_label()}` has a contrast of {contrast_of(line):.1f} with white; "
        f"{MIN_LINE_CONTRAST} is needed, or a dark edge"
        for line in named
        if contrast_of(line) < MIN_LINE_CONTRAST
    ]
    written = {text.get_text().strip() for text in axes.texts}
    by_legend = [line for line in named if line.get_label() not in written]
    for one, other in combinations(by_legend, 2):
        if one.get_label() != other.get_label() and look_of(one) == look_of(other):
            found.append(
                f"only colour tells `{one.get_label()}` from `{other.get_label()}`: give them "
                "markers, line styles or labels at their ends"
            )
    return found


def is_named(line: Line2D) -> bool:
    """Whether a line is drawn and has a label of its own."""
    return line.get_visible() and not str(line.get_label()).startswith("_") and bool(look_of(line))


def contrast_of(line: Line2D) -> float:
    """The contrast with white of what shows most: the stroke, the marker's face or its edge."""
    colors = [line.get_color()] if line.get_linestyle() not in NO_MARKER else []
    if line.get_marker() not in NO_MARKER:
        colors += [line.get_markeredgecolor(), line.get_markerfacecolor()]
    shown = [to_rgb(color) for color in colors if str(color) != "none" and to_rgba(color)[3] > 0]
    return max((contrast_with_white(color) for color in shown), default=1.0)


def look_of(line: Line2D) -> tuple[str, ...]:
    """What is seen of a line on a page without colours; empty if nothing is drawn."""
    marker, dashes = str(line.get_marker()), line._unscaled_dash_pattern
    has_marker, has_stroke = marker not in NO_MARKER, line.get_linestyle() not in NO_MARKER
    parts = [f"marker {marker} {_filled(line)}"] * has_marker + [f"dashes {dashes}"] * has_stroke
    return (*parts, f"width {line.get_linewidth():g}") if has_stroke else tuple(parts)


def _filled(line: Line2D) -> bool:
    face = line.get_markerfacecolor()
    return str(face) != "none" and contrast_with_white(to_rgb(face)) > 1.05
