"""The width from which moving beats running again, against the two times written out."""

import pytest

from utils.config import GPTConfig
from utils.hardware import find_chip
from utils.offload_price import LINKS, Link, break_even_width, link_row
from utils.predict import block_activation_bytes


@pytest.mark.parametrize("link", LINKS, ids=str)
def test_just_below_the_width_moving_is_slower_and_at_it_not(link):
    rate, bandwidth, tokens = find_chip(link.chip).peak_flops("fp16"), link.gb_per_s * 1e9, 4096
    width = break_even_width(rate, bandwidth)
    for size, moving_wins in ((width - 128, False), (width, True)):
        if size:
            config = GPTConfig(1, size // 128, size, tokens)
            linears = 2 * tokens * 12 * size**2
            scores = 2 * tokens * 2 * tokens * size
            move_s = 2 * block_activation_bytes(config, 1, tokens, 2) / bandwidth
            assert ((linears + scores) / rate >= move_s) == moving_wins


def test_a_rule_of_thumb_for_the_width():
    """64 B T D bytes against 24 B T D^2 FLOPs: the width is near 64 / 24 of FLOPs per byte."""
    assert break_even_width(989e12, 63e9, num_tokens=128) == pytest.approx(
        64 / 24 * 989e12 / 63e9, rel=0.01
    )


def test_a_faster_link_or_a_slower_chip_makes_moving_pay_earlier():
    width = break_even_width(300e12, 60e9)
    assert break_even_width(300e12, 120e9) < width
    assert break_even_width(100e12, 60e9) < width
    assert width % 128 == 0


def test_a_row():
    chip, name, speed, at_peak, at_40 = link_row(Link("H100 SXM", "PCIe 5", 63))
    assert (chip, name, speed) == ("H100 SXM", "PCIe 5", 63)
    assert at_peak == break_even_width(989e12, 63e9)
    assert at_40 == break_even_width(0.4 * 989e12, 63e9) < at_peak


@pytest.mark.parametrize("rates", [(0, 1e9), (1e12, 0), (-1, 1)])
def test_a_rate_must_be_positive(rates):
    with pytest.raises(ValueError, match="positive rate"):
        break_even_width(*rates)


def test_a_hopeless_link_is_said_so():
    with pytest.raises(ValueError, match="running again is quicker"):
        break_even_width(1e18, 1.0)
