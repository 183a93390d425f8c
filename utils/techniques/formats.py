"""Number formats from scratch: what each one can hold, and rounding into it, emulated in fp32.

How it works: a stored number is (-1)^sign x significand x 2^exponent. Around a value with exponent
e the numbers of a format lie 2^(e - mantissa_bits) apart, and e never falls below the format's
smallest exponent: there the subnormals begin. So rounding is: divide by the spacing, round to a
whole number (a tie goes to the even one), multiply back. All of it happens in float64, where every
step is exact, and the result, a value of the format, is returned as fp32.

Too large a value becomes infinity. fp8 e4m3 and fp4 e2m1 have none and saturate at their largest
value, as torch's own cast to float8_e4m3fn does since torch 2.12 (pytorch pull request 178817;
older versions gave nan). NaN stays NaN, also for e2m1, which has no bits for it: an emulated run
must show a failure, not hide it.

Left out: packing into bytes (the emulation saves no memory), the signalling bits of NaN, other
modes, AMD's fnuz variants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NumberFormat:
    """A floating-point format: 1 sign bit, then the exponent field, then the mantissa field."""

    name: str
    exponent_bits: int  # range: how large and how small
    mantissa_bits: int  # precision: how many values between two powers of two
    has_infinity: bool = True  # then the highest exponent field holds only infinity and NaN
    has_nan: bool = True  # without infinity: only the code of ones is NaN (e4m3), or none (e2m1)
    dtype: torch.dtype | None = None  # torch's name for it; None where torch cannot store it

    def __post_init__(self) -> None:
        bits_fit = 2 <= self.exponent_bits <= 8 and 1 <= self.mantissa_bits <= 23
        if not bits_fit or self.largest >= 2.0**128:
            raise ValueError(
                f"The format {self.name!r} holds numbers that fp32 lacks: choose 2 to 8 exponent "
                "bits (8 only with infinity) and 1 to 23 mantissa bits."
            )

    @property
    def num_bits(self) -> int:
        """Bits of one number. tf32 uses 19, inside the matrix units only; memory holds 32."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field to get the exponent."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def min_exponent(self) -> int:
        """The exponent of the smallest normal number, and of every subnormal one."""
        return 1 - self.bias

    @property
    def largest(self) -> float:
        """The largest finite value."""
        if self.has_infinity:
            return (2 - self.epsilon) * 2.0**self.bias
        codes_lost = 2 if self.has_nan else 1
        return (2 - codes_lost * self.epsilon) * 2.0 ** (self.bias + 1)

    @property
    def smallest_normal(self) -> float:
        """The smallest value with all its mantissa bits."""
        return 2.0**self.min_exponent

    @property
    def smallest_subnormal(self) -> float:
        """The smallest value above zero, and the distance between the values near zero."""
        return 2.0 ** (self.min_exponent - self.mantissa_bits)

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next larger value."""
        return 2.0**-self.mantissa_bits


# Sources: torch.finfo (torch 2.13); for tf32 and e2m1 NVIDIA's Transformer Engine documentation.
FP32 = NumberFormat("fp32", 8, 23, dtype=torch.float32)
TF32 = NumberFormat("tf32", 8, 10)
BF16 = NumberFormat("bf16", 8, 7, dtype=torch.bfloat16)
FP16 = NumberFormat("fp16", 5, 10, dtype=torch.float16)
E4M3 = NumberFormat("fp8 e4m3", 4, 3, has_infinity=False, dtype=torch.float8_e4m3fn)
E5M2 = NumberFormat("fp8 e5m2", 5, 2, dtype=torch.float8_e5m2)
E2M1 = NumberFormat("fp4 e2m1", 2, 1, has_infinity=False, has_nan=False)
FORMATS = {each.name: each for each in (FP32, TF32, BF16, FP16, E4M3, E5M2, E2M1)}


def find_format(name: str) -> NumberFormat:
    """The format of that name. Raises ValueError that lists the known ones."""
    if name not in FORMATS:
        raise ValueError(f"There is no format {name!r}; the known ones are: {', '.join(FORMATS)}.")
    return FORMATS[name]


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent as float64, exact on every device: written straight into the exponent field."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)


def spacing_at(x: Tensor | float, format: NumberFormat) -> Tensor:
    """Distance between the values of `format` around finite x, float64; it doubles at each 2^n."""
    wide = torch.as_tensor(x, dtype=torch.float64)
    exponent = torch.frexp(wide).exponent - 1  # frexp's significand is 0.5 to 1, ours is 1 to 2
    exponent = torch.where(wide == 0, format.min_exponent, exponent)
    return power_of_two(exponent.clamp(min=format.min_exponent) - format.mantissa_bits)


@torch.no_grad()
def round_to(x: Tensor | float, format: NumberFormat) -> Tensor:
    """The nearest value of `format` to each x, ties to even, as fp32 (without a gradient)."""
    wide = torch.as_tensor(x, dtype=torch.float64)
    spacing = spacing_at(wide, format)
    rounded = torch.round(wide / spacing) * spacing
    ceiling = math.inf if format.has_infinity else format.largest
    too_large = rounded.abs() > format.largest
    return torch.where(too_large, rounded.sign() * ceiling, rounded).float()


@torch.no_grad()
def stochastic_round_to(
    x: Tensor | float, format: NumberFormat, generator: torch.Generator | None = None
) -> Tensor:
    """One of the two neighbours of each x, the nearer one more often: the mean is exactly x.

    An update too small for `round_to` then arrives now and then instead of never. Values of the
    format do not move; above the largest value there is no upper neighbour, and `round_to` decides.
    """
    wide = torch.as_tensor(x, dtype=torch.float64)
    spacing = spacing_at(wide, format)
    below = torch.floor(wide / spacing)
    draw = torch.rand(wide.shape, generator=generator, dtype=torch.float64, device=wide.device)
    rounded = (below + (draw < wide / spacing - below)) * spacing
    rounded = torch.copysign(rounded, wide)  # as round_to: a small negative x becomes -0
    return torch.where(wide.abs() > format.largest, round_to(wide, format), rounded.float())


@dataclass(frozen=True)
class Parts:
    """A number of a format: `value` = (-1)^sign x significand x 2^exponent.

    `kind` is "normal" (significand 1 to 2), "subnormal" (below 1), "zero", "infinity" or "NaN".
    """

    kind: str
    sign: int
    significand: float
    exponent: int

    @property
    def value(self) -> float:
        """The number, put together again."""
        return (-1.0) ** self.sign * self.significand * 2.0**self.exponent


def take_apart(value: float, format: NumberFormat) -> Parts:
    """Round to `format` and split what it keeps into sign, significand and exponent."""
    kept = float(round_to(value, format))
    sign, size = int(math.copysign(1, kept) < 0), abs(kept)
    if not math.isfinite(kept):
        return Parts("NaN" if math.isnan(kept) else "infinity", sign, size, 0)
    if size < format.smallest_normal:
        significand = size / format.smallest_normal
        return Parts("subnormal" if size else "zero", sign, significand, format.min_exponent)
    fraction, exponent = math.frexp(size)  # the fraction is 0.5 to 1
    return Parts("normal", sign, 2 * fraction, exponent - 1)


def bits_of(value: float, format: NumberFormat) -> tuple[str, str, str]:
    """Round to `format`; return its (sign, exponent, mantissa) as strings of 0 and 1."""
    parts = take_apart(value, format)
    if parts.kind == "NaN" and not format.has_nan:
        raise ValueError(f"{format.name} has no bits for NaN; give it a number.")
    if parts.kind in ("infinity", "NaN"):
        field = 2**format.exponent_bits - 1
        mantissa = 2**format.mantissa_bits - 1 if parts.kind == "NaN" else 0
    else:
        leading = 1 if parts.kind == "normal" else 0  # not stored: the exponent field implies it
        field = (parts.exponent + format.bias) * leading
        mantissa = int((parts.significand - leading) / format.epsilon)
    exponent_bits = f"{field:0{format.exponent_bits}b}"
    return str(parts.sign), exponent_bits, f"{mantissa:0{format.mantissa_bits}b}"


def all_values(format: NumberFormat) -> Tensor:
    """Every finite value from zero up, in order, fp32; for formats of at most 16 bits."""
    if format.num_bits > 16:
        raise ValueError(f"{format.name} has too many values to list; take one of 16 bits or less.")
    code = torch.arange(2 ** (format.num_bits - 1))
    field, mantissa = code >> format.mantissa_bits, code % 2**format.mantissa_bits
    significand = (field > 0) + mantissa * format.epsilon
    value = significand * power_of_two(field.clamp(min=1) - format.bias)
    return value[value <= format.largest].float()
