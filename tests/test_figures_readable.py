"""The look of figures: sizes, contrast, and lines that are told apart without their colours.

Every figure that any test draws is held to `tests/figure_rules.py` (by `tests/conftest.py`); here
are the shared settings, and each rule tried on a bad figure.
"""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.code_rules import imports_of
from tests.figure_rules import figure_problems
from utils import live, plot_style
from utils.explorer import _error_html
from utils.plots import label_line_ends, new_figure, png_of

ROOT = Path(__file__).resolve().parents[1]
SIZES = ("axes.label", "axes.title", "xtick.label", "ytick.label", "legend.font")
SETTINGS = matplotlib.rcParams
DRAWS_BADLY = True  # on purpose: tests/conftest.py looks away


def test_the_shared_colours_stand_out() -> None:
    for color in plot_style.LINE_COLORS:
        assert plot_style.contrast_with_white(color) >= 3, color
        assert plot_style.contrast_with_white(plot_style.text_color(color)) >= 4.5
    for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"):
        assert plot_style.contrast_with_white(SETTINGS[name]) >= 4.5, name
    assert plot_style.contrast_with_white(SETTINGS["axes.edgecolor"]) >= 3
    edge = _error_html(ValueError("x"), "y").split("solid ")[1].split(";")[0]
    assert all(plot_style.contrast(edge, ground) >= 3 for ground in ("#ffffff", "#111111"))


def test_contrast_is_wcags() -> None:
    assert plot_style.contrast("white", "black") == pytest.approx(21)
    assert plot_style.contrast("#767676", "white") == pytest.approx(4.54, abs=0.01)
    assert plot_style.contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)
    assert plot_style.contrast("red", "red") == 1


def test_the_shared_settings_are_readable() -> None:
    cycle = list(SETTINGS["axes.prop_cycle"])
    assert len({(each["marker"], str(each["linestyle"])) for each in cycle}) == len(cycle) == 8
    assert all(SETTINGS[f"{name}size"] >= 8 for name in SIZES)
    assert not SETTINGS["savefig.transparent"]
    assert SETTINGS["figure.facecolor"] == SETTINGS["axes.facecolor"] == "white"


def test_every_figure_is_made_in_one_place() -> None:
    made = []
    for path in sorted((ROOT / "utils").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not any("pyplot" in name for _, name in imports_of(text)), path.name
        calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        made += [path.name for called in calls if ast.unparse(called).endswith("Figure")]
    assert made == ["plots.py"]  # which imports utils.plot_style


def test_no_text_is_written_small() -> None:
    small = []
    for path in sorted((ROOT / "utils").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("fontsize", "labelsize"):
                if isinstance(node.value, ast.Constant) and node.value.value < 8:
                    small.append(f"{path.name}:{node.value.lineno}")
    assert small == []


def test_nothing_flashes_or_plays_by_itself() -> None:
    assert live._SECONDS_BETWEEN_DRAWINGS >= 1 / 3  # three flashes a second are the limit
    template = ROOT / "utils/slides/template/course/index.html.j2"
    assert "autoSlide" not in template.read_text(encoding="utf-8")
    assert 'transition: "none"' in template.read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8").lower()
        assert not any(word in text for word in ("<video", "<marquee", "<blink", "image/gif"))


def drawn(spoil=lambda axes: None) -> Figure:
    """A figure of three lines inside of every rule, then spoilt and drawn."""
    figure = new_figure()
    axes = figure.subplots()
    for number in range(3):
        axes.plot([0, 1], [number, number + 1], label=f"line {number}")
    spoil(axes)
    if not axes.get_legend():
        axes.legend()
    png_of(figure)
    return figure


def same_looks(axes: Axes) -> None:
    """All lines solid and without markers."""
    for line in axes.get_lines():
        line.set(marker="", linestyle="-")


def pale(axes: Axes) -> None:
    """A line in yellow."""
    axes.get_lines()[0].set_color("#F0E442")


BAD = [
    (lambda axes: axes.text(0.5, 1, "small", fontsize=7), "`small` is 7 points tall"),
    (lambda axes: axes.text(0.5, 1, "pale", color="#999999"), "`pale` has a contrast of 2.8"),
    (lambda axes: axes.tick_params(labelsize=6), "is 6 points tall"),
    (lambda axes: axes.legend(fontsize=7), "`line 0` is 7 points tall"),
    (pale, "the line `line 0` has a contrast of 1.3"),
    (same_looks, "only colour tells `line 0` from `line 1`"),
    (lambda axes: axes.figure.set_facecolor("#eeeeee"), "the ground is not white"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD)
def test_each_rule_finds_what_it_forbids(spoil, words: str) -> None:
    assert figure_problems(drawn()) == []
    figure = drawn(spoil) if words[:10] != "the ground" else drawn()
    if words.startswith("the ground"):
        spoil(figure.axes[0])
    assert any(words in each for each in figure_problems(figure))


def test_what_the_rules_allow() -> None:
    def on_a_bar(axes: Axes) -> None:
        axes.add_patch(Rectangle((0.2, 0.2), 0.6, 2, facecolor="#0072B2"))
        axes.text(0.5, 1.2, "white", color="white", ha="center")

    def at_their_ends(axes: Axes) -> None:
        same_looks(axes)
        label_line_ends(axes)

    def with_an_edge(axes: Axes) -> None:
        axes.plot([0], [3], "o", color="#F0E442", markeredgecolor="black", label="edged")

    for spoil in (on_a_bar, at_their_ends, with_an_edge):
        assert figure_problems(drawn(spoil)) == []
    widths = drawn(lambda axes: [line.set(marker="", linestyle="-", linewidth=2 + number)
                                 for number, line in enumerate(axes.get_lines())])  # fmt: skip
    assert figure_problems(widths) == []
    looks = [line.get_linewidth() for line in widths.axes[0].get_lines()]
    assert all(one < other for one, other in pairwise(looks))
