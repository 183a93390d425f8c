"""Who worked when: bars of compute and communication on lanes, one time axis.

How it works: a `Span` is a named stretch of time on a lane ("rank 0 compute"). Kinds have colours
and hatches of their own, so that a bar is told apart without colour. The simulator and the recorded
events of real ranks are drawn by the same function.

Left out: arrows between spans; what waits for what is read off the gaps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plot_style import OKABE_ITO, contrast_with_white

KINDS = (
    "forward", "backward", "communication", "optimizer", "waiting", "other", "gather", "reduce",
)  # fmt: skip
_FILLS = (*OKABE_ITO[:4], "#dddddd", OKABE_ITO[5], "#7fcfb9", OKABE_ITO[4])
COLOURS = dict(zip(KINDS, _FILLS, strict=True))
HATCHES = dict(zip(KINDS, ("", "//", "..", "xx", "", "\\\\", "", "--"), strict=True))


@dataclass(frozen=True)
class Span:
    """One bar: seconds from the start of the picture."""

    lane: str
    kind: str
    start_s: float
    end_s: float
    label: str = ""


def draw_timeline(
    axes: Axes, spans: Sequence[Span], end_s: float = 0.0, lanes: Sequence[str] = ()
) -> None:
    """Draw the spans in milliseconds, lanes from top to bottom in order of appearance.

    `end_s` fixes the right end, and `lanes` the lanes, so that several pictures can be compared.
    Raises ValueError for a kind that has no colour, or no span at all.
    """
    unknown = {span.kind for span in spans} - set(KINDS)
    if unknown or not spans:
        raise ValueError(
            f"A timeline needs spans, each of a kind in {KINDS}; got {sorted(unknown) or 'none'}."
        )
    lanes = list(lanes) or list(dict.fromkeys(span.lane for span in spans))
    for span in spans:
        axes.barh(
            lanes.index(span.lane),
            1e3 * (span.end_s - span.start_s),
            left=1e3 * span.start_s,
            height=0.8,
            color=COLOURS[span.kind],
            hatch=HATCHES[span.kind],
            edgecolor="white",
            linewidth=0.5,
        )
        if span.label:
            middle = 500 * (span.start_s + span.end_s)
            ink = "white" if contrast_with_white(COLOURS[span.kind]) >= 4.5 else "black"
            axes.text(middle, lanes.index(span.lane), span.label, ha="center", va="center",
                      fontsize=8, color=ink, clip_on=True)  # fmt: skip
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set(xlabel="milliseconds", ylim=(len(lanes) - 0.4, -0.6))
    axes.set_xlim(0, 1e3 * (end_s or max(span.end_s for span in spans)))
    axes.grid(False, axis="y")


def draw_timelines(figure: Figure, pictures: Mapping[str, Sequence[Span]]) -> None:
    """Several timelines below each other, on one time axis, each under its title."""
    end_s = max(span.end_s for spans in pictures.values() for span in spans)
    grid = figure.subplots(len(pictures), 1, squeeze=False)[:, 0]
    for axes, (title, spans) in zip(grid, pictures.items(), strict=True):
        draw_timeline(axes, spans, end_s)
        axes.set_title(title)
        axes.set_xlabel("")
    axes.set_xlabel("milliseconds")
    add_kind_legend(axes, [span for spans in pictures.values() for span in spans])


def add_kind_legend(axes: Axes, spans: Sequence[Span]) -> None:
    """Name the kinds that occur, below the figure; once per figure."""
    used = [kind for kind in KINDS if any(span.kind == kind for span in spans)]
    handles = [
        axes.barh([0], [0], color=COLOURS[kind], hatch=HATCHES[kind], edgecolor="white")
        for kind in used
    ]
    axes.figure.legend(handles, used, loc="outside lower center", ncols=len(used), fontsize=8)
