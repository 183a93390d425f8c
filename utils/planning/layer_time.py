"""Seconds of each layer on a chip: matrix products, element-wise work, and running it again.

How it works: products are FLOPs over a rate, element-wise work is bytes over the memory's
bandwidth, one after the other, as kernels run. Bytes are counted from the operations of
utils/model.py: what each kernel reads and writes, in values per token with D and F the widths,

                      forward      backward
    two norms         4 D          6 D
    two residuals     6 D          6 D
    GELU              2 F          3 F
    fused attention   2 D + 2 KV   4 D + 4 KV      KV: keys and values, once each
    explicit          6 H T        9 H T           instead of skipping half of the scores

Under autocast norms and residuals are fp32, and values are cast at 6 bytes each: 2 D forward (what
the two norms give to products) and 4 D backward. A layer is never faster than kernels are issued.

Left out: reading weights and activations for products (they are bound by arithmetic at the sizes of
training), overlap of kernels, what a compiler fuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from utils.config import GPTConfig
from utils.hardware import Chip
from utils.planning.assumptions import Assumptions, memory_bytes_per_s, product_flops
from utils.planning.recipe_bytes import regime_of
from utils.recipe import TrainingRecipe
from utils.simulate.layers import Layer, layer_tensors

KERNELS = {"forward": 20, "backward": 40}  # of one block, about; the same of the head
COPY_BYTES = 6  # fp32 read and 16 bits written


@dataclass(frozen=True)
class Pace:
    """What one chip does in a second at a precision."""

    product_flops_per_s: float
    memory_bytes_per_s: float
    assumptions: Assumptions

    @classmethod
    def of(cls, chip: Chip, precision: str, assumptions: Assumptions) -> Pace:
        """Raises ValueError for a chip without the rate or the bandwidth."""
        return cls(
            product_flops(chip, precision, assumptions), memory_bytes_per_s(chip, assumptions),
            assumptions,
        )  # fmt: skip

    def seconds(self, flops: float, moved_bytes: float, num_kernels: int) -> float:
        """Products, then element-wise work; or as long as it takes to issue that."""
        worked_s = flops / self.product_flops_per_s + moved_bytes / self.memory_bytes_per_s
        return max(worked_s, num_kernels * self.assumptions.kernel_s)


@dataclass(frozen=True)
class LayerTimes:
    """The model's layers in order, as the simulator takes them, and the parts of their time."""

    layers: tuple[Layer, ...]  # backward includes what runs again
    parts_s: Mapping[str, float]  # of one micro-batch, all layers together


def layer_times(
    recipe: TrainingRecipe, config: GPTConfig, num_tokens: int, pace: Pace
) -> LayerTimes:
    """Seconds of one micro-batch on one GPU: embedding, blocks, output layer with the loss."""
    work = _Work(recipe, config, num_tokens, pace)
    forward_s, backward_s, again_s = work.block()
    head_s = work.head()
    times = {"embedding": work.embedding(), "output": head_s}
    layers = []
    for name, sizes in layer_tensors(config).items():
        fore_s, back_s = times.get(name, (forward_s, backward_s + again_s))
        layers.append(Layer(name, fore_s, back_s, sizes))
    run_again_s = config.num_layers * again_s
    total_s = sum(layer.forward_s + layer.backward_s for layer in layers)
    products_s = 3 * work.products() / pace.product_flops_per_s
    parts = {
        "products": min(products_s, total_s - run_again_s),
        "element-wise": max(0.0, total_s - run_again_s - products_s),
        "run again": run_again_s,
    }
    return LayerTimes(tuple(layers), parts)


class _Work:
    """FLOPs and bytes of one micro-batch."""

    def __init__(
        self, recipe: TrainingRecipe, config: GPTConfig, num_tokens: int, pace: Pace
    ) -> None:
        self.recipe, self.config, self.pace = recipe, config, pace
        self.length, self.tokens = num_tokens, recipe.batch_size * num_tokens
        regime = regime_of(recipe)
        self.value_bytes = 4 if regime == "fp32" else 2
        self.residual_bytes = 2 if regime == "16-bit weights" else 4
        self.copies = regime == "autocast"

    def block(self) -> tuple[float, float, float]:
        """Forward, backward, and forward again if it is checkpointed."""
        flops, kernels = self._block_flops(), KERNELS
        forward_s = self.pace.seconds(flops, self._bytes(6, 4, 2, 1, 2), kernels["forward"])
        backward_s = self.pace.seconds(2 * flops, self._bytes(6, 6, 3, 2, 4), kernels["backward"])
        if self.recipe.checkpointing != "blocks":
            return forward_s, backward_s, 0.0
        width, wide = self.config.model_dim, self.config.feed_forward_dim
        last = 2 * self.tokens * width * wide  # backward needs all but the last product
        again_s = self.pace.seconds(flops - last, self._bytes(6, 4, 2, 1, 2), kernels["forward"])
        return forward_s, backward_s, again_s

    def head(self) -> tuple[float, float]:
        """The output layer and the loss, whose bytes are one third forward."""
        config, per_logit = self.config, self.pace.assumptions.loss_bytes_per_logit
        flops = 2 * self.tokens * config.model_dim * config.vocab_size
        moved = per_logit * self.tokens * config.vocab_size
        forward_s = self.pace.seconds(flops, moved / 3, KERNELS["forward"])
        return forward_s, self.pace.seconds(2 * flops, 2 * moved / 3, KERNELS["backward"])

    def embedding(self) -> tuple[float, float]:
        """Reading rows of the tables, and adding up their gradients."""
        values = self.tokens * self.config.model_dim
        moved = 3 * self.residual_bytes * values
        return self.pace.seconds(0, moved, 3), self.pace.seconds(0, moved, 6)

    def products(self) -> float:
        """Forward FLOPs as they are computed, of the whole model."""
        head = 2 * self.tokens * self.config.model_dim * self.config.vocab_size
        return self.config.num_layers * self._block_flops() + head

    def _block_flops(self) -> float:
        """Attention's products weigh what they cost, in FLOPs of a plain product."""
        config, width = self.config, self.config.model_dim
        linears = 2 * width * width + 2 * width * config.kv_dim
        linears += 2 * width * config.feed_forward_dim
        scores = 2.0 * self.length * width
        if self.recipe.attention == "fused":
            scores *= 0.5 / self.pace.assumptions.attention_share
        return 2 * self.tokens * (linears + scores)

    def _bytes(
        self, residuals: int, norms: int, wides: int, attentions: int, casts: int
    ) -> float:  # fmt: skip
        """What element-wise kernels and attention move; the counts are of the table above."""
        config, width = self.config, self.config.model_dim
        values = self.residual_bytes * (residuals + norms) * width
        values += self.value_bytes * wides * config.feed_forward_dim
        if self.recipe.attention == "fused":
            values += self.value_bytes * attentions * 2 * (width + config.kv_dim)
        else:
            passes = {1: 6, 2: 9}[attentions]
            values += self.value_bytes * passes * config.num_heads * self.length
        if self.copies:
            values += COPY_BYTES * casts * width
        return self.tokens * values
