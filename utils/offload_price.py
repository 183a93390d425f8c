"""When moving a block's saved tensors to a slower memory is quicker than running the block again.

How it works: a block's forward takes about 24 B T D^2 (1 + T / 6D) FLOPs (lesson 01's count without
grouped heads: 24 D^2 for the linear layers, 4 T D for the scores, per token). It saves
`block_activation_bytes`, which cross the link twice: out in forward, back in backward. FLOPs grow
with D squared and bytes with D, so there is a width from which moving wins.

Left out: copies that run while the chip computes, latency, and links that several chips share.
"""

from typing import NamedTuple

from utils.config import GPTConfig
from utils.hardware import find_chip
from utils.predict import block_activation_bytes

HEAD_DIM = 128
MAX_WIDTH = 1_000_000


class Link(NamedTuple):
    """A chip and the way out of it."""

    chip: str
    name: str
    gb_per_s: float  # 1e9 bytes per second, one direction


# ml-engineering network/README, read 2026-11-23. NVLink leads to another GPU, PCIe to the host.
LINKS = (
    Link("A100 80GB", "PCIe 4", 31),
    Link("H100 SXM", "PCIe 5", 63),
    Link("V100 32GB", "NVLink 2", 150),
    Link("A100 80GB", "NVLink 3", 300),
    Link("H100 SXM", "NVLink 4", 450),
)


def break_even_width(flops_per_s: float, bytes_per_s: float, num_tokens: int = 4096) -> int:
    """The least model width, in steps of one head, from which moving a block is not slower.

    Fused attention, 16-bit activations, heads 128 wide, feed-forward layer four times as wide.
    Raises ValueError for a rate that is not positive, or if no width below a million will do.
    """
    if flops_per_s <= 0 or bytes_per_s <= 0:
        raise ValueError("break_even_width needs a positive rate of FLOPs and of bytes.")
    for width in range(HEAD_DIM, MAX_WIDTH, HEAD_DIM):
        block = GPTConfig(1, width // HEAD_DIM, width, num_tokens)
        moved_bytes = 2 * block_activation_bytes(block, 1, num_tokens, value_bytes=2)
        flops = 24 * num_tokens * width**2 * (1 + num_tokens / (6 * width))
        if flops / flops_per_s >= moved_bytes / bytes_per_s:
            return width
    raise ValueError(f"Up to a width of {MAX_WIDTH:,} running again is quicker on this link.")


def link_row(link: Link, utilisation: float = 0.4) -> tuple[str, str, float, int, int]:
    """Chip, link, GB/s, and the width at the chip's 16-bit peak and at a share of it."""
    peak = find_chip(link.chip).peak_flops("fp16")
    widths = [break_even_width(share * peak, link.gb_per_s * 1e9) for share in (1.0, utilisation)]
    return link.chip, link.name, link.gb_per_s, widths[0], widths[1]
