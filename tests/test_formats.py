"""Rounding from scratch against torch's own casts, bit for bit, and against the definitions."""

import math

import pytest
import torch

from tests.format_values import (
    IN_TORCH,
    SMALL,
    assert_same_bits,
    by_name,
    every_value,
    small,
)
from utils.techniques.formats import (
    BF16,
    E2M1,
    E4M3,
    FORMATS,
    FP16,
    FP32,
    TF32,
    NumberFormat,
    all_values,
    bits_of,
    find_format,
    power_of_two,
    round_to,
    spacing_at,
)

E2M1_VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def assert_equals_torch(x, format):
    """Bit-equal to torch's cast; before torch 2.12 casts to e4m3 gave NaN above the largest."""
    ours, theirs = round_to(x, format), x.to(format.dtype).float()
    if format is E4M3 and torch.tensor(1e9).to(format.dtype).isnan():
        assert (ours[x.abs() > 464].abs() == 448).all()
        ours, theirs, x = ours[x.abs() <= 464], theirs[x.abs() <= 464], x[x.abs() <= 464]
    assert_same_bits(ours, theirs, x)


@pytest.mark.parametrize("format", IN_TORCH, ids=[each.name for each in IN_TORCH])
def test_the_figures_are_torchs_own(format):
    info = torch.finfo(format.dtype)
    assert (format.num_bits, format.largest) == (info.bits, info.max)
    assert (format.smallest_normal, format.epsilon) == (info.smallest_normal, info.eps)
    one = torch.ones(1, dtype={8: torch.int8, 16: torch.int16, 32: torch.int32}[info.bits])
    assert format.smallest_subnormal == one.view(format.dtype).double().item()


def test_the_figures_of_the_formats_that_torch_cannot_store():
    assert (TF32.num_bits, TF32.epsilon, TF32.smallest_normal) == (19, 2**-10, 2**-126)
    assert TF32.largest == (2 - 2**-10) * 2.0**127
    assert (E2M1.num_bits, E2M1.largest, E2M1.smallest_normal) == (4, 6, 1)
    assert (E2M1.smallest_subnormal, E2M1.epsilon) == (0.5, 0.5)


@small
def test_every_value_every_tie_and_their_neighbours_round_as_in_torch(format):
    values = every_value(format)
    finite = values[values.isfinite() & (values >= 0)].double().unique()
    beyond = 2 * finite[-1] - finite[-2]  # where the next value would be
    ties = (finite + torch.cat([finite[1:], beyond[None]])) / 2
    points = torch.cat([values, beyond[None].float(), ties.float(), -ties.float()])
    assert (ties.float().double() == ties).all()  # so they are true ties
    infinity = torch.tensor(math.inf)
    above, below = (torch.nextafter(points, limit) for limit in (infinity, -infinity))
    assert_equals_torch(torch.cat([points, above, below]), format)


@small
def test_random_bit_patterns_round_as_in_torch(format):
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (2**20,), generator=generator).to(torch.int32)
    x = bits.view(torch.float32)
    subnormal = (x != 0) & (x.abs() < FP32.smallest_normal)
    assert subnormal.any() and x.isnan().any() and (x.abs() > format.largest).any()
    assert_equals_torch(x, format)
    near_its_range = torch.randn(2**18, generator=generator) * format.smallest_normal
    assert_equals_torch(near_its_range, format)


def test_fp32_keeps_every_fp32_number():
    x = torch.arange(-(2**31), 2**31, 9973).to(torch.int32).view(torch.float32)
    assert_same_bits(round_to(x, FP32), x, x)


def test_tf32_is_fp32_rounded_to_ten_mantissa_bits():
    bits = torch.arange(0, 255 << 23, 997, dtype=torch.int32)  # 255 is the field of infinity
    tie_to_even = (bits >> 13) & 1
    expected = (bits + 0xFFF + tie_to_even) & ~0x1FFF  # a carry out of the mantissa is right
    x = bits.view(torch.float32)
    assert_same_bits(round_to(x, TF32), expected.view(torch.float32), x)
    assert round_to(FP32.largest, TF32) == math.inf


def test_fp4_has_fifteen_values_and_rounds_to_the_nearest():
    assert all_values(E2M1).tolist() == E2M1_VALUES
    values = torch.tensor(sorted({s * v for s in (-1.0, 1.0) for v in E2M1_VALUES}))
    assert len(values) == 15
    x = torch.linspace(-7.003, 7.003, 1001)  # no tie among them
    nearest = values[(x[:, None] - values).abs().argmin(dim=1)]
    assert torch.equal(round_to(x, E2M1), nearest)
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, -5.0])
    assert round_to(ties, E2M1).tolist() == [0, 1, 1, 2, 2, 4, 4, 6, -4]


def test_a_format_without_infinity_saturates_and_nan_stays_nan():
    x = torch.tensor([math.inf, -math.inf, 1e30, math.nan])
    assert round_to(x, E4M3)[:3].tolist() == [448, -448, 448]
    assert round_to(x, E2M1)[:3].tolist() == [6, -6, 6]
    assert all(round_to(x, each)[3].isnan() for each in FORMATS.values())


def test_float64_is_rounded_once():
    x = 1 + 2**-11 + 2**-40  # fp32 would first drop the 2^-40, and leave a tie
    assert round_to(torch.tensor(x, dtype=torch.float64), FP16) == 1 + 2**-10
    assert torch.tensor(x, dtype=torch.float32).half() == 1


def test_the_two_sums_that_lose_their_one():
    assert round_to(256.0 + 1, BF16) == 256
    assert round_to(2048.0 + 1, FP16) == 2048


def test_rounding_leaves_shape_and_input_alone_and_passes_no_gradient():
    weight = torch.nn.Parameter(torch.full((2, 3), 0.1))
    kept = round_to(weight, BF16)
    assert kept.shape == (2, 3) and not kept.requires_grad
    assert weight[0, 0] == torch.tensor(0.1)


@pytest.mark.parametrize("format", [*SMALL, E2M1], ids=lambda each: each.name)
def test_the_spacing_is_the_distance_to_the_next_value(format):
    values = all_values(format).double()
    assert torch.equal(spacing_at(values[:-1], format), values.diff())
    assert torch.equal(spacing_at(-values[:-1], format), values.diff())
    if format.dtype is not None:
        theirs = every_value(format)
        assert torch.equal(values, theirs[theirs.isfinite()].abs().double().unique())


def test_the_spacing_of_the_wide_formats():
    assert spacing_at(1.0, FP32) == 2**-23 and spacing_at(0.0, FP32) == 2.0**-149
    assert spacing_at(torch.tensor([0.99, 1.0, 1000.0]), TF32).tolist() == [2**-11, 2**-10, 2**-1]


def test_powers_of_two_are_exact():
    exponents = torch.arange(-1022, 1024)
    assert power_of_two(exponents).tolist() == [2.0**n for n in range(-1022, 1024)]


def test_what_cannot_be_done_is_said_in_a_sentence():
    with pytest.raises(ValueError, match=r"no format 'bf17'; the known ones are: fp32, tf32"):
        find_format("bf17")
    assert find_format("bf16") is BF16
    with pytest.raises(ValueError, match="fp4 e2m1 has no bits for NaN"):
        bits_of(math.nan, E2M1)
    with pytest.raises(ValueError, match="tf32 has too many values"):
        all_values(TF32)
    for fields in ((9, 3), (4, 24), (4, 0), (8, 3, False)):
        with pytest.raises(ValueError, match="holds numbers that fp32 lacks"):
            NumberFormat("wrong", *fields)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@by_name
def test_a_gpu_rounds_as_the_cpu_does(format):
    x = torch.arange(-(2**31), 2**31, 99991).to(torch.int32).view(torch.float32)
    assert_same_bits(round_to(x.cuda(), format).cpu(), round_to(x, format), x)
