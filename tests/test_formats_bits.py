"""Bits and parts of a value: those that torch stores, and put together the value again."""

import math

import pytest
import torch

from tests.format_values import (
    SIGNED_CODES,
    by_name,
    every_value,
    small,
)
from utils.techniques.formats import (
    BF16,
    E2M1,
    FP16,
    FP32,
    TF32,
    bits_of,
    round_to,
    take_apart,
)


@small
def test_the_bits_are_the_bits_that_torch_stores(format):
    step = 1 if format.num_bits == 8 else 131
    for code, value in list(enumerate(every_value(format).tolist()))[::step]:
        bits = "".join(bits_of(value, format))
        assert len(bits) == format.num_bits
        if math.isnan(value):
            code = int(bits, 2) - (2**format.num_bits if bits[0] == "1" else 0)
            stored = torch.tensor([code]).to(SIGNED_CODES[format.num_bits]).view(format.dtype)
            assert stored.float().isnan()
        else:
            assert int(bits, 2) == code


def test_bits_by_hand():
    assert bits_of(0.1, BF16) == ("0", "01111011", "1001101")
    assert bits_of(-1.0, FP32) == ("1", "01111111", "0" * 23)
    assert bits_of(-math.inf, FP16) == ("1", "11111", "0" * 10)
    assert bits_of(6.0, E2M1) == ("0", "11", "1")
    assert bits_of(1.0, TF32) == ("0", "01111111", "0" * 10)


@by_name
@pytest.mark.parametrize("value", [0.1, -3.0, 448.0, 1e-7, 1e9, -0.0, math.inf, 1e-44])
def test_the_parts_put_together_are_the_rounded_value(value, format):
    parts = take_apart(value, format)
    kept = round_to(value, format).item()
    assert parts.value == kept
    assert math.copysign(1, parts.value) == math.copysign(1, value) == (-1) ** parts.sign
    limits = {"normal": (1, 2), "subnormal": (format.epsilon, 1), "zero": (0, 1)}
    if math.isfinite(kept):
        low, high = limits[parts.kind]
        assert low <= parts.significand < high
        assert (parts.kind == "zero") == (kept == 0)


def test_the_kinds_of_numbers():
    values = [1.0, 2.0**-14, 1e-5, 2.0**-26, 70000.0, math.nan]
    expected = ["normal", "normal", "subnormal", "zero", "infinity", "NaN"]
    assert [take_apart(value, FP16).kind for value in values] == expected
