"""Formats in which neighbours share a scale: MXFP8, NVFP4, and one scale for a whole tensor.

How it works: a block of consecutive values is divided by a scale that brings its largest value to
the top of a small format, rounded there, and multiplied back. What comes back is fp32 that holds
only what the format would have kept, with the exact number of bits that it would have stored.

| format | data | one scale per | kept as |
|---|---|---|---|
| MXFP8 | fp8 e4m3 | 32 values | e8m0: a power of two, 8 bits |
| NVFP4 | fp4 e2m1 | 16 values, and the tensor | fp8 e4m3 per block, fp32 per tensor |
| per tensor | fp8 e4m3 | tensor | fp32 |

Blocks run along the last dimension. A last block that is not full is filled with zeros, which
change no scale; they are not counted, but the block's scale is (NVIDIA's library refuses such a
shape). Division happens in float64, where kernels multiply by a rounded reciprocal, so a value
within a rounding of a tie may go the other way.

Left out: packing into bytes, 16 x 16 blocks for weights, stochastic rounding of gradients, the
Hadamard transform, and the second copy that is quantised along the other dimension.
Source: NVIDIA Transformer Engine documentation, mxfp8.rst and nvfp4.rst (read November 2026).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.techniques.formats import E2M1, E4M3, NumberFormat, power_of_two, round_to

MXFP8_BLOCK = 32
NVFP4_BLOCK = 16
MIN_E8M0_EXPONENT = -127  # e8m0 holds 2^-127 to 2^127 and no zero


@dataclass(frozen=True)
class Quantised:
    """A tensor after its way through a format with scales.

    `values` has the shape of the input, fp32; `scales` are those of the blocks (shape of the input
    with the number of blocks last) or the one scale (no dimension); `total_bits` counts values and
    scales as the format stores them.
    """

    name: str
    values: Tensor
    scales: Tensor
    total_bits: int

    @property
    def bits_per_value(self) -> float:
        """Stored bits per value, scales included: 8.25 for full blocks of MXFP8."""
        return self.total_bits / self.values.numel()


@torch.no_grad()
def quantise_mxfp8(x: Tensor) -> Quantised:
    """e4m3 with one power of two per 32 values: 2^ceil(log2(amax / 448)), so nothing overflows."""
    blocks = _in_blocks(x, MXFP8_BLOCK)
    scales = _power_of_two_above(_largest(blocks) / E4M3.largest)
    rounded = round_to(blocks / scales, E4M3) * scales
    total_bits = x.numel() * E4M3.num_bits + scales.numel() * 8
    return Quantised("MXFP8", _out_of_blocks(rounded, x), scales[..., 0].float(), total_bits)


@torch.no_grad()
def quantise_nvfp4(x: Tensor) -> Quantised:
    """e2m1 with an e4m3 scale per 16 values, relative to one fp32 scale for the tensor.

    A block below 1/458,752 (2^-10 / 448) of the tensor's largest value gets scale 0 and is lost.
    """
    blocks = _in_blocks(x, NVFP4_BLOCK)
    tensor_scale = (_largest(blocks).max() / (E4M3.largest * E2M1.largest)).float().double()
    block_scales = round_to(_divide(_largest(blocks) / E2M1.largest, tensor_scale), E4M3).double()
    scales = block_scales * tensor_scale
    rounded = round_to(_divide(blocks, scales), E2M1) * scales
    total_bits = x.numel() * E2M1.num_bits + scales.numel() * E4M3.num_bits + 32
    return Quantised("NVFP4", _out_of_blocks(rounded, x), scales[..., 0].float(), total_bits)


@torch.no_grad()
def quantise_per_tensor(x: Tensor, format: NumberFormat = E4M3) -> Quantised:
    """One fp32 scale that brings the tensor's largest value to the format's largest value."""
    _refuse_unless_finite(x)
    wide = x.double()
    scale = (wide.abs().max() / format.largest).float()
    rounded = round_to(_divide(wide, scale.double()), format) * scale.double()
    name = f"{format.name}, one scale per tensor"
    return Quantised(name, rounded.float(), scale, x.numel() * format.num_bits + 32)


def relative_rms_error(x: Tensor, kept: Tensor) -> float:
    """Root mean square of (kept - x), divided by that of x; large values dominate both."""
    error, size = (kept.double() - x.double()).norm(), x.double().norm()
    return float(error / size) if error else 0.0


def share_lost(x: Tensor, kept: Tensor) -> float:
    """Share of the values other than zero that became zero; 0 when there are none."""
    is_value = x != 0
    return float((kept[is_value] == 0).double().mean()) if is_value.any() else 0.0


def _in_blocks(x: Tensor, size: int) -> Tensor:
    """x [..., N] as float64 [..., blocks, size]; zeros fill the last block."""
    _refuse_unless_finite(x)
    return F.pad(x.double(), (0, -x.shape[-1] % size)).unflatten(-1, (-1, size))


def _out_of_blocks(blocks: Tensor, like: Tensor) -> Tensor:
    """[..., blocks, size] as fp32 in the shape of `like`, without the filling."""
    return blocks.flatten(-2)[..., : like.shape[-1]].float()


def _largest(blocks: Tensor) -> Tensor:
    """The largest absolute value of each block, [..., blocks, 1]."""
    return blocks.abs().amax(dim=-1, keepdim=True)


def _power_of_two_above(ratio: Tensor) -> Tensor:
    """The smallest power of two that e8m0 holds and that is not below the ratio, as float64."""
    fraction, exponent = torch.frexp(ratio)  # the fraction is 0.5 to 1, and 0.5 for a power of two
    exponent = torch.where(fraction == 0.5, exponent - 1, exponent)
    exponent = torch.where(ratio == 0, MIN_E8M0_EXPONENT, exponent)
    return power_of_two(exponent.clamp(min=MIN_E8M0_EXPONENT))


def _divide(x: Tensor, scale: Tensor) -> Tensor:
    """x / scale, and 0 where the scale is 0."""
    return torch.where(scale > 0, x / scale, 0.0)


def _refuse_unless_finite(x: Tensor) -> None:
    if x.dim() == 0 or x.numel() == 0 or not bool(torch.isfinite(x).all()):
        raise ValueError(
            "A scale is found from the largest value, so the tensor needs at least one dimension, "
            "one value, and no infinity or NaN; look at what was passed in."
        )
