"""Llama 2 and 3 as layers for the simulator: their real shapes, FLOPs and parameter tensors.

How it works: `utils/data/llama_shapes.csv` has the shapes with their source. Llama's gated layer
has three D x F matrices; two of D x 3F/2 hold the same weights and cost the same FLOPs, so that
the course's counts (utils.costs) serve for it. FLOPs are the usual ones: all products of matrices,
attention in full although half of it is masked, backward twice forward. A checkpointed layer
computes its forward again in backward.

Units are those that FSDP and YaFSDP wrap in the latter's examples (yandex/YaFSDP at 669fc36,
patches/transformers.diff): the embedding, each block, the output layer, here with the last norm.
Left out: element-wise work, and the optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

from utils.config import GPTConfig
from utils.costs import block_tensor_sizes
from utils.data import check_row, read_table
from utils.simulate.layers import Layer, layer_flops


@dataclass(frozen=True)
class LlamaShape:
    """The shape of one published model; `ff_dim` is the gated layer's F."""

    model: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    model_dim: int
    ff_dim: int
    vocab_size: int
    source: str
    read_on: date
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        check_row(self)

    def config(self, num_tokens: int) -> GPTConfig:
        """The course's config with this model's bill, for sequences of `num_tokens`."""
        return GPTConfig(
            self.num_layers, self.num_heads, self.model_dim, num_tokens, self.vocab_size,
            ff_dim=3 * self.ff_dim // 2, num_kv_heads=self.num_kv_heads, bias=False,
        )  # fmt: skip

    @property
    def num_parameters(self) -> int:
        """All parameters; Llama has no position embedding and no tied output layer."""
        table = self.vocab_size * self.model_dim
        block = sum(block_tensor_sizes(self.config(1)))
        return 2 * table + self.num_layers * block + self.model_dim

    @property
    def norm_values(self) -> tuple[int, ...]:
        """For each unit, how many of its values are a norm's."""
        return (0, *[2 * self.model_dim] * self.num_layers, self.model_dim)


@lru_cache
def load_llama_shapes() -> tuple[LlamaShape, ...]:
    """All shapes, in the table's order."""
    return read_table("llama_shapes.csv", LlamaShape)


def find_llama(model: str) -> LlamaShape:
    """The shape of that name. Raises ValueError that lists the known ones."""
    shapes = {shape.model: shape for shape in load_llama_shapes()}
    if model not in shapes:
        raise ValueError(f"There is no shape {model!r}; the known ones are: {', '.join(shapes)}.")
    return shapes[model]


def llama_layers(
    shape: LlamaShape,
    num_tokens: int,
    flops_per_s: float,
    checkpointed_layers: int = 0,
    batch_size: int = 1,
) -> tuple[Layer, ...]:
    """Embedding, blocks and output layer; the first `checkpointed_layers` blocks recompute.

    `flops_per_s` is what one GPU really does: its peak times a utilisation. Raises ValueError for
    a batch, a length or a rate that is not positive, or for more checkpointed layers than blocks.
    """
    if min(num_tokens, batch_size) < 1 or not flops_per_s > 0:
        raise ValueError(
            "A step needs at least 1 sequence of 1 token on a GPU that does more than 0 FLOPs a "
            f"second, not {batch_size} of {num_tokens} at {flops_per_s}."
        )
    config = shape.config(num_tokens)
    table = shape.vocab_size * shape.model_dim
    block = tuple(block_tensor_sizes(config))
    sizes = [(table,), *[block] * shape.num_layers, (shape.model_dim, table)]
    flops = layer_flops(config, batch_size, num_tokens)
    layers = [
        Layer(name, count / flops_per_s, 2 * count / flops_per_s, tensors)
        for (name, count), tensors in zip(flops.items(), sizes, strict=True)
    ]
    blocks = checkpointed(layers[1:-1], checkpointed_layers)
    return (layers[0], *blocks, layers[-1])


def checkpointed(layers: Sequence[Layer], num_layers: int) -> tuple[Layer, ...]:
    """The first `num_layers` of them compute their forward again in backward."""
    if not 0 <= num_layers <= len(layers):
        raise ValueError(f"Of {len(layers)} layers, {num_layers} cannot be checkpointed.")
    again = [replace(a, backward_s=a.forward_s + a.backward_s) for a in layers[:num_layers]]
    return (*again, *layers[num_layers:])
