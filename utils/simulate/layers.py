"""A GPT as a list of layers: how long each computes, and which gradients it gives.

How it works: FLOPs of each layer are those of utils.costs, exact; divided by what the chip does
in a second (its peak times a utilisation), they are seconds. Backward takes twice as long as
forward. The parameter tensors are those of `model.parameters()`, in its order.

`split_over` is a replica that is spread over several GPUs: each holds and computes an equal part
of every layer. What such a split costs in messages is not counted.
Left out: norms, softmax and other element-wise work, the optimizer, kernels too small for the chip.
"""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import GPTConfig
from utils.costs import block_tensor_sizes


@dataclass(frozen=True)
class Layer:
    """One part of the model that computes as a whole."""

    name: str
    forward_s: float
    backward_s: float
    tensor_sizes: tuple[int, ...]  # values in each parameter tensor, in the model's order

    @property
    def num_values(self) -> int:
        """Parameters of the layer."""
        return sum(self.tensor_sizes)


def layer_flops(config: GPTConfig, batch_size: int, num_tokens: int) -> dict[str, int]:
    """Forward FLOPs of the embedding (0), of each block and of the output layer; in sum exact."""
    width, tokens = config.model_dim, batch_size * num_tokens
    projections = width * (width + 2 * config.kv_dim) + width * width
    block = projections + 2 * width * config.feed_forward_dim + 2 * num_tokens * width
    blocks = {f"block {number}": 2 * tokens * block for number in range(config.num_layers)}
    return {"embedding": 0, **blocks, "output": 2 * tokens * width * config.vocab_size}


def layer_tensors(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Values in each parameter tensor of each layer; together in the order of the model."""
    width = config.model_dim
    block = tuple(block_tensor_sizes(config))
    output = () if config.tied_embeddings else (config.vocab_size * width,)
    return {
        "embedding": (config.vocab_size * width, config.context_length * width),
        **{f"block {number}": block for number in range(config.num_layers)},
        "output": (width,) * (1 + config.bias) + output,
    }


def gpt_layers(
    config: GPTConfig,
    batch_size: int,
    flops_per_s: float,
    num_tokens: int | None = None,
    split_over: int = 1,
) -> tuple[Layer, ...]:
    """Layers of a forward and backward pass over B x T tokens (T: context_length if not given).

    `flops_per_s` is what one GPU really does, e.g. `find_chip("H100 SXM").peak_flops() * 0.5`.
    Raises ValueError for a batch, a rate or a split that is not positive.
    """
    tokens = config.context_length if num_tokens is None else num_tokens
    if min(batch_size, tokens, split_over) < 1 or not flops_per_s > 0:
        raise ValueError(
            "A step needs at least 1 sequence of 1 token on 1 GPU that does more than 0 FLOPs a "
            f"second, not {batch_size} of {tokens} on {split_over} at {flops_per_s}."
        )
    flops, tensors = layer_flops(config, batch_size, tokens), layer_tensors(config)
    layers = []
    for name, sizes in tensors.items():
        forward_s = flops[name] / (split_over * flops_per_s)
        parts = tuple(-(-size // split_over) for size in sizes)  # rounded up
        layers.append(Layer(name, forward_s, 2 * forward_s, parts))
    return tuple(layers)
