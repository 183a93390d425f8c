"""Block formats against blocks worked out by hand and against loops that use torch's own casts."""

import math

import pytest
import torch

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.techniques.block_formats import (
    quantise_mxfp8,
    quantise_nvfp4,
    quantise_per_tensor,
    relative_rms_error,
    share_lost,
)
from utils.techniques.formats import E2M1, E4M3, E5M2, all_values

ALL = [quantise_mxfp8, quantise_nvfp4, quantise_per_tensor]
each_format = pytest.mark.parametrize("quantise", ALL, ids=lambda each: each.__name__)
FP4_VALUES = torch.tensor([s * v for s in (1.0, -1.0) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6)])


def real_weights():
    """A GPT's weights: what the course quantises."""
    model = build_gpt(GPTConfig(2, 2, 64, 64, 96), seed=3)
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() > 1])


def to_e4m3(x):
    """torch's cast; values must not exceed 448 by more than rounding, as older torch gives NaN."""
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).to(x.dtype)


def test_mxfp8_by_hand():
    block = torch.zeros(32)
    block[:4] = torch.tensor([896.0, 1.0, -2.125, 3.0])  # 896 = 448 x 2^1 exactly
    kept = quantise_mxfp8(block)
    assert kept.scales.tolist() == [2.0]
    # 2.125 / 2 = 1.0625 is a tie between 1 and 1.125, and 1 is even.
    assert kept.values[:5].tolist() == [896.0, 1.0, -2.0, 3.0, 0.0]
    block[0] = 897.0  # no longer fits, so the scale doubles
    assert quantise_mxfp8(block).scales.tolist() == [4.0]


def test_mxfp8_scale_is_the_power_of_two_above_amax_over_448():
    rows = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    rows *= torch.logspace(-30, 30, 200)[:, None]
    kept = quantise_mxfp8(rows)
    for row, values, scale in zip(rows.double(), kept.values, kept.scales[:, 0], strict=True):
        exponent = math.ceil(math.log2(row.abs().max().item() / 448))
        assert scale.item() == 2.0**exponent
        assert torch.equal(values, (to_e4m3(row / 2.0**exponent) * 2.0**exponent).float())


def test_mxfp8_scale_stays_inside_e8m0():
    tiny = torch.full((32,), 2.0**-140)
    kept = quantise_mxfp8(tiny)
    assert kept.scales.item() == 2.0**-127
    assert torch.equal(kept.values, torch.zeros(32))  # 2^-13, below half of 2^-9
    assert quantise_mxfp8(torch.zeros(32)).scales.item() == 2.0**-127
    huge = torch.full((32,), 2.0**127)
    assert quantise_mxfp8(huge).scales.item() == 2.0**119
    assert torch.equal(quantise_mxfp8(huge).values, huge)


def test_nvfp4_by_hand():
    x = torch.zeros(32)
    x[:4] = torch.tensor([2688.0, 448.0, -700.0, 100.0])  # 2688 = 448 x 6: the tensor's scale is 1
    x[16:19] = torch.tensor([12.0, 5.0, -0.9])  # 12 / 6 = 2
    kept = quantise_nvfp4(x)
    assert kept.scales.tolist() == [448.0, 2.0]
    # 700 / 448 = 1.56 becomes 1.5, 100 / 448 = 0.22 becomes 0; a tie at 2.5 becomes 2.
    assert kept.values[:4].tolist() == [2688.0, 448.0, -672.0, 0.0]
    assert kept.values[16:20].tolist() == [12.0, 4.0, -1.0, 0.0]


def test_nvfp4_equals_plain_loops_over_the_fifteen_values():
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
    x = (x * torch.logspace(-3, 3, 40)[:, None]).double()
    tensor_scale = (x.abs().max() / (448 * 6)).float().double()
    kept = quantise_nvfp4(x)
    for row, values, shown in zip(x, kept.values, kept.scales[:, 0], strict=True):
        scale = to_e4m3(row.abs().max() / 6 / tensor_scale) * tensor_scale
        nearest = (row[:, None] / scale - FP4_VALUES).abs().argmin(dim=1)
        assert torch.allclose(values, (FP4_VALUES[nearest] * scale).float(), rtol=1e-6, atol=0)
        assert shown == scale.float()


def test_nvfp4_loses_a_block_that_is_too_small_for_its_scale():
    x = torch.zeros(3, 16)
    x[0, 0], x[1], x[2] = 458752.0, 0.9, 1.1
    kept = quantise_nvfp4(x)
    assert (kept.values[1] == 0).all() and (kept.values[2] > 0).all()
    assert kept.scales[1] == 0
    assert share_lost(x, kept.values) == 16 / 33


@pytest.mark.parametrize("format", [E4M3, E5M2, E2M1], ids=lambda each: each.name)
def test_one_scale_per_tensor_maps_the_largest_value_to_the_formats_largest(format):
    x = real_weights()
    kept = quantise_per_tensor(x, format)
    scale = (x.abs().max().double() / format.largest).float().double()
    assert kept.scales == scale.float()
    nearest_grid = all_values(format).double() * scale
    distance = (x.abs()[:4096, None].double() - nearest_grid).abs().amin(dim=1)
    assert torch.allclose((kept.values - x)[:4096].abs().double(), distance, rtol=0, atol=1e-8)


@each_format
def test_zeros_stay_zeros(quantise):
    kept = quantise(torch.zeros(3, 64))
    assert torch.equal(kept.values, torch.zeros(3, 64))
    assert relative_rms_error(torch.zeros(3, 64), kept.values) == 0
    assert share_lost(torch.zeros(3, 64), kept.values) == 0


@each_format
def test_signs_shapes_and_the_input_are_kept(quantise):
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(2))
    before = x.clone()
    kept = quantise(torch.nn.Parameter(x)).values
    assert kept.shape == x.shape and kept.dtype == torch.float32 and not kept.requires_grad
    assert torch.equal(quantise(-x).values, -kept)
    assert (kept.sign() * x.sign() >= 0).all()
    assert torch.equal(x, before)


@each_format
def test_what_is_kept_does_not_change_when_it_is_quantised_again(quantise):
    kept = quantise(real_weights()).values
    assert torch.allclose(quantise(kept).values, kept, rtol=1e-6, atol=0)


def test_bits_per_value_are_exact():
    x = torch.randn(128, 96)
    assert quantise_mxfp8(x).bits_per_value == 8.25
    assert quantise_nvfp4(x).total_bits == 4.5 * x.numel() + 32
    assert quantise_per_tensor(x).total_bits == 8 * x.numel() + 32
    assert quantise_per_tensor(x, E2M1).total_bits == 4 * x.numel() + 32
    assert quantise_mxfp8(x).scales.shape == (128, 3)
    assert quantise_nvfp4(x).scales.shape == (128, 6)


@pytest.mark.parametrize("length", [1, 31, 33, 70])
def test_a_last_block_that_is_not_full_costs_a_whole_scale(length):
    x = torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    for quantise, size, bits in ((quantise_mxfp8, 32, 8), (quantise_nvfp4, 16, 4)):
        filled = torch.zeros(2, size * math.ceil(length / size))
        filled[:, :length] = x
        kept, whole = quantise(x), quantise(filled)
        assert torch.equal(kept.values, whole.values[:, :length])
        assert torch.equal(kept.scales, whole.scales)
        tensor_scale_bits = 32 if quantise is quantise_nvfp4 else 0
        num_blocks = 2 * math.ceil(length / size)
        assert kept.total_bits == 2 * length * bits + num_blocks * 8 + tensor_scale_bits


@pytest.mark.parametrize(
    ("quantise", "format", "outlier"),
    [(quantise_mxfp8, E4M3, 1e6), (quantise_nvfp4, E2M1, 30.0)],
    ids=["MXFP8", "NVFP4"],
)
def test_with_an_outlier_block_scales_beat_one_scale_per_tensor(quantise, format, outlier):
    x = real_weights() / real_weights().std()
    calm = relative_rms_error(x, quantise_per_tensor(x, format).values)
    x[1000] = outlier
    others = torch.arange(len(x)) != 1000
    in_blocks, in_one = quantise(x).values, quantise_per_tensor(x, format).values
    errors = [relative_rms_error(x[others], kept[others]) for kept in (in_blocks, in_one)]
    assert errors[0] < 1.25 * calm  # only the block of the outlier suffers
    assert errors[1] > 4 * errors[0]
    assert share_lost(x, in_one) > 0.5 > 0.1 > share_lost(x, in_blocks)


def test_fewer_bits_mean_more_error_on_real_weights():
    x = real_weights()
    errors = [relative_rms_error(x, q(x).values) for q in (quantise_mxfp8, quantise_nvfp4)]
    one_fp4_scale = relative_rms_error(x, quantise_per_tensor(x, E2M1).values)
    assert 0.02 < errors[0] < 0.03 < 0.08 < errors[1] < 0.11 < one_fp4_scale


def test_the_error_by_hand():
    x, kept = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([3.0, 3.0, 0.0])
    assert relative_rms_error(x, kept) == pytest.approx(1 / 5)
    assert relative_rms_error(torch.zeros(2), torch.ones(2)) == math.inf
    assert share_lost(x, torch.tensor([3.0, 0.0, 0.0])) == 0.5


@each_format
def test_a_tensor_without_a_scale_is_refused_in_a_sentence(quantise):
    for wrong in (torch.tensor([1.0, math.inf]), torch.tensor([math.nan]), torch.zeros(0, 32)):
        with pytest.raises(ValueError, match="no infinity or NaN; look at what was passed in"):
            quantise(wrong)
