"""The explorers of number formats: bits, values and staircases read back from what was drawn."""

import math

import pytest
from ipywidgets import FloatLogSlider
from matplotlib.collections import LineCollection, PathCollection, PolyCollection

from tests.explorer_controls import assert_every_control_counts
from utils.format_explorers import (
    BITS_SIZE,
    COLUMN_ENDS,
    FIELDS,
    HIGH,
    LOW,
    SPACING_SIZE,
    bits_explorer,
    draw_bits,
    draw_spacing,
    spacing_explorer,
)
from utils.plots import new_figure, png_of
from utils.techniques.formats import FORMATS, bits_of, spacing_at

makers = pytest.mark.parametrize("make", [bits_explorer, spacing_explorer])
by_name = pytest.mark.parametrize("name", FORMATS)


@pytest.mark.parametrize(
    ("value", "sign", "name", "reading"),
    [
        (0.1, 1, "bf16", "0.1 becomes 0.10009765625 in bf16, an error of 0.098 %."),
        (0.1, -1, "fp8 e5m2", "-0.1 becomes -0.09375 in fp8 e5m2, an error of 6.3 %."),
        (257, 1, "bf16", "257 becomes 256 in bf16, an error of 0.39 %."),
        (16777217, 1, "fp32", "16777217 becomes 16777216 in fp32, an error of 0.000006 %."),
        (2048, 1, "fp16", "2048 is kept exactly in fp16."),
        (70000, 1, "fp16", "70000 becomes inf in fp16, whose largest value is 65504."),
        (500, -1, "fp8 e4m3", "-500 becomes -448 in fp8 e4m3, whose largest value is 448."),
        (0.1, 1, "fp4 e2m1", "0.1 becomes 0 in fp4 e2m1, whose smallest value above 0 is 0.5."),
        (2e-7, 1, "fp16", "2e-07 becomes 1.7881393433e-07 in fp16, one of its subnormals, "
         "an error of 11 %."),
    ],
)
def test_the_sentence_about_a_number(value, sign, name, reading):
    assert draw_bits(new_figure(*BITS_SIZE), value, sign, name) == reading


@pytest.mark.parametrize("value", [0.1, 1e-6, 70000.0])
def test_the_digits_drawn_are_the_bits(value):
    figure = new_figure(*BITS_SIZE)
    draw_bits(figure, value, -1, "bf16")
    axes = figure.axes[0]
    zeros, ones = (c for c in axes.collections if isinstance(c, PathCollection))
    digits = {tuple(at): "0" for at in zeros.get_offsets()}
    digits |= {tuple(at): "1" for at in ones.get_offsets()}
    for row, format in enumerate(FORMATS.values()):
        drawn = "".join(digits[at] for at in sorted(digits) if at[1] == row)
        assert drawn == "".join(bits_of(-value, format)), format.name
        columns = sorted(at[0] for at in digits if at[1] == row)
        last_exponent, first_mantissa = columns[format.exponent_bits : format.exponent_bits + 2]
        assert first_mantissa == FIELDS["mantissa"][1] + 0.5  # the same in every row
        assert last_exponent == FIELDS["exponent"][1] + FIELDS["exponent"][2] - 0.5
    (cells,) = (c for c in axes.collections if type(c) is PolyCollection)
    assert len(cells.get_paths()) == sum(format.num_bits for format in FORMATS.values()) == 103


def test_the_picture_names_every_format_with_what_it_keeps_and_the_chosen_one_in_full():
    figure = new_figure(*BITS_SIZE)
    draw_bits(figure, 0.1, 1, "fp16")
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert {*FORMATS, *FIELDS, "0.1 in", "keeps", "error", "0.1015625", "6.3 %"} <= set(texts)
    bold = {name for name in FORMATS if texts[name].get_weight() == "bold"}
    assert bold == {"fp16"}
    assert "fp16:  + 1.599609375 × 2⁻⁴ = 0.0999755859375" in texts


def test_the_picture_says_when_a_number_is_subnormal_or_infinite():
    for value, words in ((1e-6, "(subnormal: no leading 1)"), (1e6, "−infinity (exponent all")):
        figure = new_figure(*BITS_SIZE)
        draw_bits(figure, value, -1, "fp16")
        assert any(words in text.get_text() for text in figure.axes[0].texts)


@pytest.mark.parametrize("name", ["fp32", "fp8 e4m3"])
@pytest.mark.parametrize(
    ("draw", "size", "values"),
    [
        (draw_bits, BITS_SIZE, (-1.25893e-6, 1)),  # the longest texts
        (draw_spacing, SPACING_SIZE, (2.0**LOW,)),
        (draw_spacing, SPACING_SIZE, (2.0**HIGH,)),
    ],
)
def test_no_text_leaves_the_picture_or_touches_another(draw, size, values, name):
    figure = new_figure(*size)
    draw(figure, *values, name)
    png_of(figure)
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    picture = figure.bbox.padded(1)
    for text, box in zip(texts, boxes, strict=True):
        assert picture.contains(box.x0, box.y0) and picture.contains(box.x1, box.y1), text
        assert not [other for other in boxes if other is not box and box.overlaps(other)], text
        if text.get_position()[0] == COLUMN_ENDS[1]:  # what is kept stands right of the bits
            end_of_bits = FIELDS["mantissa"][1] + FIELDS["mantissa"][2]
            assert box.x0 > figure.axes[0].transData.transform((end_of_bits, 0))[0] + 3


def test_a_typed_number_and_a_slider_position_are_shown_as_they_are_used():
    explorer = bits_explorer()
    assert explorer.reading.startswith("0.1 becomes 0.10009765625 in bf16")
    explorer.controls["value"].value = 257
    assert explorer.reading == "257 becomes 256 in bf16, an error of 0.39 %."
    explorer.controls["value"].value = 10**0.1  # 1.258925411794167
    assert explorer.reading == "1.25893 becomes 1.2578125 in bf16, an error of 0.089 %."


@makers
def test_the_first_control_is_a_slider_and_every_control_changes_the_reading(make):
    explorer = make()
    assert isinstance(next(iter(explorer.controls.values())), FloatLogSlider)
    assert_every_control_counts(explorer)


@by_name
def test_every_format_draws_at_every_magnitude(name):
    for power in (LOW, -14.5, HIGH):
        assert name in draw_bits(new_figure(*BITS_SIZE), 2.0**power, -1, name)
        assert name in draw_spacing(new_figure(*SPACING_SIZE), 2.0**power, name)


@pytest.mark.parametrize(
    ("magnitude", "name", "reading"),
    [
        (
            1.0,
            "bf16",
            "Around 1, bf16 values lie 0.0078125 apart, "
            "so adding less than 0.00390625 changes nothing.",
        ),
        (
            2.0**-20,
            "fp16",
            "Around 9.53674e-07, subnormal fp16 values lie 5.96046e-08 apart, "
            "so adding less than 2.98023e-08 changes nothing.",
        ),
        (1000.0, "fp8 e4m3", "1000 is beyond fp8 e4m3, whose largest value is 448."),
        (2.0**-30, "fp16", "9.31323e-10 becomes 0 in fp16, whose smallest value is 5.96046e-08."),
    ],
)
def test_the_sentence_about_a_magnitude(magnitude, name, reading):
    assert draw_spacing(new_figure(*SPACING_SIZE), magnitude, name) == reading


@by_name
def test_the_staircase_of_the_chosen_format_is_its_spacing(name):
    figure = new_figure(*SPACING_SIZE)
    draw_spacing(figure, 2.0**-3.5, name)
    stairs = figure.axes[1]
    everyone, chosen = (c for c in stairs.collections if isinstance(c, LineCollection))
    (corners,) = chosen.get_segments()
    assert len(everyone.get_segments()) == len(FORMATS)
    assert corners[0][0] == LOW
    assert corners[-1][0] == min(HIGH, math.log2(FORMATS[name].largest))
    for (left, y), (right, y_right) in zip(corners[::2], corners[1::2], strict=True):
        assert y == y_right == math.log2(spacing_at(2.0 ** ((left + right) / 2), FORMATS[name]))
    _line, dot = stairs.lines
    assert dot.get_xydata().tolist() == [[-3.5, math.log2(spacing_at(2.0**-3.5, FORMATS[name]))]]


def test_the_bars_are_the_ranges_and_both_panels_mark_the_magnitude():
    figure = new_figure(*SPACING_SIZE)
    draw_spacing(figure, 2.0**10, "fp8 e4m3")
    ranges, stairs = figure.axes
    solid, striped = (collection.get_segments() for collection in ranges.collections)
    for row, format in enumerate(FORMATS.values()):
        ends = (format.smallest_subnormal, format.smallest_normal, format.largest)
        first, normal, last = map(math.log2, ends)
        assert solid[row].tolist() == [[normal, row], [last, row]]
        assert striped[row].tolist() == [[first, row], [normal, row]]
    assert [axes.lines[0].get_xdata()[0] for axes in (ranges, stairs)] == [10, 10]
    assert len(stairs.lines) == 1  # beyond 448 there is no dot
    assert any(text.get_text().strip() == "too large" for text in stairs.texts)


def test_a_format_that_does_not_exist_is_named_in_a_sentence():
    for draw, values in ((draw_bits, (1.0, 1)), (draw_spacing, (1.0,))):
        with pytest.raises(ValueError, match="no format 'bf17'"):
            draw(new_figure(), *values, "bf17")
