"""The precisions of the roofline: which numbers are multiplied, and how wide a value travels.

How it works: one frozen `Precision` per way of training. "autocast" is lesson 02's with CUDA's
lists: weights, residual stream, norms, softmax and loss stay fp32. "bf16" keeps every value in 16
bits and fp32 masters in the optimizer. "fp8" multiplies 8-bit copies in the blocks' linear layers
and is "bf16" otherwise, as torchtitan's recipes keep the output layer out.
Left out: formats below 8 bits, and mixtures by layer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Which numbers are multiplied, and how many bytes a value has on its way.

    `linear` is the format of the products in the blocks' linear layers, `product` that of all other
    products. `linear_bytes` is what the former read, `value_bytes` what products write and the rest
    of a block's inside; `stream_bytes` the residual stream, norms, softmax and loss; `weight_bytes`
    weights and gradients.
    """

    name: str
    linear: str
    product: str
    linear_bytes: int
    value_bytes: int
    stream_bytes: int
    weight_bytes: int


PRECISIONS = {
    each.name: each
    for each in (
        Precision("fp32", "fp32", "fp32", 4, 4, 4, 4),
        Precision("tf32", "tf32", "tf32", 4, 4, 4, 4),
        Precision("autocast", "bf16", "bf16", 2, 2, 4, 4),
        Precision("bf16", "bf16", "bf16", 2, 2, 2, 2),
        Precision("fp8", "fp8", "bf16", 1, 2, 2, 2),
    )
}


def find_precision(name: str) -> Precision:
    """The precision of that name. Raises ValueError that lists the known ones."""
    if name not in PRECISIONS:
        raise ValueError(f"There is no precision {name!r}; choose one of {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]
