"""Claimed, sourced and found ranges side by side: factors on a logarithmic axis, percentages apart.

How it works: each claim is a row with a line for each kind of range that it has; a kind has its own
colour and its own marker at both ends, and an open end is an arrow.
Left out: claims without numbers, and verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.claims import Claim
from utils.evidence.finding import Finding, Span
from utils.plots import OKABE_ITO

KINDS = ("the article", "primary sources", "computed here", "timed on this machine")
STYLES = {  # colour, marker
    "the article": (OKABE_ITO[1], "s"),
    "primary sources": (OKABE_ITO[0], "o"),
    "computed here": (OKABE_ITO[2], "^"),
    "timed on this machine": (OKABE_ITO[3], "D"),
}
Ranges = dict[str, Span]
FLOPS_UNIT = 1e24  # claim 1 is drawn as a factor of it


def ranges_of(claim: Claim, finding: Finding, timed: Span | None = None) -> Ranges:
    """The ranges of one claim by kind, without those it does not have; FLOPs become a factor."""
    spans = zip(KINDS, (claim.claimed, claim.sourced, finding.span, timed), strict=True)
    unit = FLOPS_UNIT if claim.unit == "FLOPs" else 1.0
    return {kind: Span(s.low / unit, s.high / unit) for kind, s in spans if s is not None}


def reading(claims: Sequence[Claim]) -> str:
    """The figure in one sentence: where sources stay below the claim, and what lies furthest."""
    pairs = [each for each in claims if each.claimed and each.sourced]
    below = [str(each.number) for each in pairs if each.sourced.high < each.claimed.low]
    left_out = [each for each in claims if each.group == "left out" and each.sourced]
    largest = max(left_out, key=lambda each: each.sourced.high)
    return (
        f"Of {len(pairs)} claims with a number, {len(below)} lie above all that their sources say "
        f"({', '.join(below)}), the rest overlap; the largest factor that the article does not "
        f"name is up to {largest.sourced.high:g} (claim {largest.number})."
    )


def draw_ranges(
    figure: Figure,
    claims: Sequence[Claim],
    findings: Mapping[int, Finding],
    timed: Mapping[int, Span] | None = None,
) -> None:
    """Factors on the left, percentages that the article claims on the right."""
    timed = timed or {}
    left, right = figure.subplots(1, 2)
    factors = [each for each in claims if each.unit in ("x", "FLOPs")]
    percents = [each for each in claims if each.unit == "%" and each.claimed]
    for axes, chosen in ((left, factors), (right, percents)):
        rows = {
            f"{each.number}  {each.short}": ranges_of(
                each, findings[each.number], timed.get(each.number)
            )
            for each in chosen
        }
        _draw_rows(axes, rows, is_log=axes is left)
    left.set(title="Factors", xlabel="times (1: times 10^24 FLOPs)")
    right.set(title="Percentages", xlabel="percent")
    figure.legend(handles=_handles(), loc="outside lower center", ncols=len(KINDS))


def _draw_rows(axes: Axes, rows: Mapping[str, Ranges], is_log: bool) -> None:
    if is_log:
        axes.set_xscale("log")
        axes.axvline(1.0, color="#888888", linewidth=1, zorder=0)
    for place, ranges in enumerate(rows.values()):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", zorder=0)
        for kind, span in ranges.items():
            height = place + 0.2 * (KINDS.index(kind) - 1.5)
            _draw_span(axes, kind, span, height)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    if is_log:
        ticks = [0.5, 1, 2, 5, 10, 20, 50]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()


def _draw_span(axes: Axes, kind: str, span: Span, height: float) -> None:
    color, marker = STYLES[kind]
    style = {"color": color, "markersize": 6}
    if math.isinf(span.high):
        axes.plot([span.low], [height], marker=marker, linestyle="", **style)
        axes.annotate(
            "", xytext=(span.low, height), xy=(2 * span.low, height),
            arrowprops={"arrowstyle": "->", "color": color, "linewidth": 2},
        )  # fmt: skip
        return
    axes.plot([span.low, span.high], [height] * 2, marker=marker, linestyle="-", **style)


def _handles() -> list[Line2D]:
    return [
        Line2D([], [], color=color, marker=marker, linestyle="-", label=kind)
        for kind, (color, marker) in STYLES.items()
    ]
