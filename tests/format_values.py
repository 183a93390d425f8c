"""The formats to test, all values of one, and equality to the bit."""

import pytest
import torch

from utils.techniques.formats import FORMATS

IN_TORCH = [each for each in FORMATS.values() if each.dtype is not None]
SMALL = [each for each in IN_TORCH if each.num_bits <= 16]
SIGNED_CODES = {8: torch.int8, 16: torch.int16}
by_name = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
small = pytest.mark.parametrize("format", SMALL, ids=[each.name for each in SMALL])


def every_value(format):
    """All codes of a torch format, decoded by torch: zeros, infinities and NaNs included."""
    codes = torch.arange(2**format.num_bits).to(SIGNED_CODES[format.num_bits])
    return codes.view(format.dtype).float()


def assert_same_bits(ours, theirs, x):
    assert ours.dtype == theirs.dtype == torch.float32
    same = (ours.view(torch.int32) == theirs.view(torch.int32)) | (ours.isnan() & theirs.isnan())
    wrong = [(x[i].item(), ours[i].item(), theirs[i].item()) for i in (~same).nonzero()[:3, 0]]
    assert same.all(), f"(x, ours, torch's): {wrong}"
