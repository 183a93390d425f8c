"""The roofline drawn and read: against utils.roofline, and with every control at both ends."""

import math

import pytest

from tests.explorer_controls import assert_every_control_counts
from utils.config import PRESETS
from utils.costs import count_parameters
from utils.hardware import find_chip
from utils.plots import new_figure
from utils.roofline import roofline, speed_up
from utils.roofline_explorer import roofline_explorer
from utils.roofline_plots import draw_roofline, show_roofline
from utils.roofline_tables import SHOWN_CHIPS
from utils.roofline_work import VECTOR
from utils.speed_up_plot import draw_speed_ups, show_speed_ups

START = {
    "chip": "H100 SXM", "model": "gpt2-124m", "batch_size": 8, "precision": "bf16", "over": "fp32",
}  # fmt: skip
GPT2 = PRESETS["gpt2-124m"]


def reading_of(**changes):
    return draw_roofline(new_figure(8.4, 3.8), **{**START, **changes})


def test_the_reading_says_step_gain_and_where_it_comes_from():
    old, new = (roofline("H100 SXM", GPT2, 8, kind) for kind in ("fp32", "bf16"))
    reading = reading_of()
    assert f"takes at least {1e3 * new.step_s:.1f} ms, " in reading
    assert f"{speed_up('H100 SXM', GPT2, 8):.2f} times as fast as in fp32" in reading
    products, rest = (
        [sum(line.seconds(o) for o in line.operations if (o.format == VECTOR) == is_rest)
         for line in (old, new)]
        for is_rest in (False, True)
    )  # fmt: skip
    assert f"products gain {products[0] / products[1]:.1f} times" in reading
    assert f"all else gains {rest[0] / rest[1]:.2f} times" in reading
    assert reading.endswith(f"all else is {100 * rest[1] / new.step_s:.0f} % of the step.")


def test_points_lie_on_the_roofs_and_bars_are_the_milliseconds():
    figure = new_figure(8.4, 3.8)
    draw_roofline(figure, **START)
    roofs, times = figure.axes
    new, old = (roofline("H100 SXM", GPT2, 8, kind) for kind in ("bf16", "fp32"))
    dots = [line for line in roofs.lines if line.get_linestyle() == "None"]
    points = [tuple(point) for line in dots for point in line.get_xydata()]
    assert len(points) == len(new.parts)
    for x, y in points:
        assert y == pytest.approx(min(math.log10(989), x + math.log10(3.35)), abs=1e-9)
    behind, works, waits = times.collections
    for place, name in enumerate(new.parts):
        part = new.parts[name]
        assert width(behind, place) == pytest.approx(1e3 * old.parts[name].seconds)
        assert width(works, place) == pytest.approx(1e3 * part.compute_bound_s)
        total = width(works, place) + width(waits, place)
        assert total == pytest.approx(1e3 * part.seconds)
        assert times.get_yticklabels()[place].get_text() == f"{place + 1} {name}"
    assert waits.get_hatch() == "////"


def width(bars, place):
    box = bars.get_paths()[place].get_extents()
    return box.x1 - box.x0


def test_every_number_is_written_once():
    figure = new_figure(8.4, 3.8)
    draw_roofline(figure, **{**START, "precision": "fp8"})
    parts = roofline("H100 SXM", GPT2, 8, "fp8").parts
    words = " ".join(t.get_text() for t in figure.axes[0].texts if t.get_text()[0].isdigit())
    assert sorted(map(int, words.split())) == list(range(1, len(parts) + 1))


def test_what_the_table_lacks_is_said():
    missing = reading_of(chip="A100 80GB", precision="fp8")
    start = "The table has no roofline of A100 80GB in fp8, so this is bf16: on A100 80GB a step"
    assert missing.startswith(start)
    assert "the table has no fp32 rate of it to compare with" in reading_of(chip="Maia 100")
    assert reading_of(chip="MTIA v2").endswith("the chip is made to serve, not to train.")
    assert reading_of(chip="V100 32GB").endswith("; its 16 bits are fp16.")
    assert "multiplies fp32 values in bf16, so only bytes shrink" in reading_of(chip="TPU v5e")
    held = 16 * count_parameters(PRESETS["llama2-70b-shape"]).total / 1e9
    assert f"are {held:,.0f}"[:8] in reading_of(model="llama2-70b-shape")
    assert reading_of(model="llama2-70b-shape").endswith("and the chip holds 80 GB.")


def test_every_control_moves_to_both_ends_and_changes_the_reading():
    explorer = roofline_explorer()
    assert explorer.params == START
    assert_every_control_counts(explorer, START)


def test_every_chip_in_every_precision_can_be_drawn():
    explorer = roofline_explorer()
    chip, precision = explorer.controls["chip"], explorer.controls["precision"]
    assert "Sohu" not in chip.options and "MTIA v1" in chip.options
    for place, name in enumerate(chip.options):
        chip.value = name
        precision.value = precision.options[place % len(precision.options)]
        assert explorer.error is None and name in explorer.reading, (name, explorer.error)


def test_speed_ups_are_drawn_where_they_are():
    figure = new_figure(8.0, 4.2)
    reading = draw_speed_ups(figure, "gpt2-124m", 8)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    values = 10 ** lines["step: all values in 16 bits"].get_xdata()
    assert values == pytest.approx([speed_up(name, GPT2, 8) for name in SHOWN_CHIPS])
    peaks = 10 ** lines["16-bit peak over fp32 peak"].get_xdata()
    assert peaks[SHOWN_CHIPS.index("RTX 4090")] == pytest.approx(2)
    assert len(lines["step: autocast"].get_xdata()) == len(SHOWN_CHIPS) - 3  # without the TPUs
    cards = [speed_up(name, GPT2, 8) for name in ("RTX 3090", "RTX 4090")]
    assert f"{min(cards):.1f} to {max(cards):.1f} times on consumer cards" in reading
    for name in SHOWN_CHIPS:
        assert find_chip(name).use == "trains"


def test_show_prints_the_reading(capsys):
    show_roofline("H100 SXM", "gpt2-124m", 8, measured=True)
    show_speed_ups("gpt2-1.5b", 4, ["H100 SXM", "TPU v5e"])
    printed = capsys.readouterr().out
    assert printed.count("Reading: ") == 2 and "Roofline of H100 SXM" in printed
    with pytest.raises(ValueError, match="no preset 'gpt5'; choose one of laptop"):
        show_roofline("H100 SXM", "gpt5", 8)
