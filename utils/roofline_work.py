"""What every operation of a training step computes and moves: FLOPs and bytes, with a pencil.

How it works: forward, backward and the optimizer are listed operation by operation, as autograd
runs utils/model.py. Each operation reads its inputs from the device's memory once and writes its
outputs once; nothing waits in a cache, nothing is fused but the fused attention. FLOPs of products
are those of utils.costs (attention in full); of the rest a few per value, where a root, a
division, an exp or an erf counts as one. The list knows no chip: that is utils.roofline.

Left out: biases, masks, copies that only rearrange heads, statistics of one value per token,
dropout, and the scores that fused attention computes again in backward.

Letters: B batch, T tokens, D model width, F feed-forward width, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.roofline_precisions import Precision, find_precision

VECTOR = "vector"  # not a product: runs outside of the matrix units
ADAM_BYTES = 24  # fp32 master, mean and mean square of a parameter, each read and written

# FLOPs per value, (forward, backward).
NORM, GELU, RESIDUAL, LOSS = (8, 13), (5, 11), (1, 1), (5, 3)
SOFTMAX, SCALE, MASK = (5, 4), (1, 1), (1, 1)
ADAM_FLOPS = 14


@dataclass(frozen=True)
class Operation:
    """One kind of operation, summed over the layers: they have the same FLOPs per byte."""

    part: str
    phase: str  # forward, backward or optimizer
    format: str  # of the numbers that are multiplied, or "vector"
    flops: int
    num_bytes: int

    @property
    def intensity(self) -> float:
        """FLOPs per byte of memory traffic."""
        return self.flops / self.num_bytes


def step_operations(
    config: GPTConfig, batch_size: int, precision: str = "bf16", num_tokens: int = 0
) -> tuple[Operation, ...]:
    """All operations of one step on `batch_size` sequences (T: context_length if not given).

    Raises ValueError for an unknown precision, no sequence or no token.
    """
    if batch_size < 1 or num_tokens < 0:
        raise ValueError(
            "A step needs at least 1 sequence of at least 1 token, not "
            f"{batch_size} of {num_tokens}."
        )
    return tuple(_Step(config, batch_size, find_precision(precision), num_tokens).all())


class _Step:
    """The operations, part by part."""

    def __init__(
        self, config: GPTConfig, batch_size: int, precision: Precision, num_tokens: int
    ) -> None:
        self.config, self.precision = config, precision
        self.sequence = num_tokens or config.context_length
        self.tokens = batch_size * self.sequence
        self.layers, self.hidden = config.num_layers, self.tokens * config.model_dim  # N x D
        self.wide = self.tokens * config.feed_forward_dim
        self.logits = self.tokens * config.vocab_size
        self.scores = self.tokens * config.num_heads * self.sequence
        width = config.model_dim
        self.projections = ((width, width + 2 * config.kv_dim), (width, width))
        self.feed_forward = ((width, config.feed_forward_dim), (config.feed_forward_dim, width))

    def all(self) -> Iterator[Operation]:
        """In the order of a step's parts."""
        precision, config = self.precision, self.config
        inside = (precision.linear, precision.linear_bytes, self.layers)
        for shape in self.projections:
            yield from self._linear("attention projections", *shape, *inside)
        yield from self._fused() if config.attention == "fused" else self._explicit()
        for shape in self.feed_forward:
            yield from self._linear("feed-forward", *shape, *inside)
        head = (config.model_dim, config.vocab_size, precision.product, precision.value_bytes, 1)
        yield from self._linear("output layer", *head)
        value, stream = precision.value_bytes, precision.stream_bytes
        norms, adds = (2 * self.layers + 1) * self.hidden, 2 * self.layers * self.hidden
        yield from self._vector("norms", norms, NORM, 2 * stream, 3 * stream)
        yield from self._vector("GELU", self.layers * self.wide, GELU, 2 * value, 3 * value)
        yield from self._vector("residual", adds, RESIDUAL, 2 * stream + value, 3 * stream)
        yield from self._vector("loss", self.logits, LOSS, 2 * stream, 4 * stream)
        yield from self._embedding()
        yield from self._casts()
        yield self._optimizer()

    def _linear(
        self, part: str, num_in: int, num_out: int, format: str, read_bytes: int, count: int
    ) -> Iterator[Operation]:
        """y = x W, then the gradients of x and of W: three products of the same three shapes."""
        value = self.precision.value_bytes
        x, weight, y = self.tokens * num_in, num_in * num_out, self.tokens * num_out
        flops = 2 * self.tokens * num_in * num_out * count
        passes = (("forward", x, weight, y), ("backward", y, weight, x), ("backward", x, y, weight))
        for phase, first, second, result in passes:
            moved = (first + second) * read_bytes + result * value
            yield Operation(part, phase, format, flops, count * moved)

    def _fused(self) -> Iterator[Operation]:
        """Reads q, k, v and writes y; backward reads y and its gradient as well, writes three."""
        flops = 2 * 2 * self.hidden * self.sequence * self.layers
        moved = self.precision.value_bytes * self.hidden * self.layers
        format = self.precision.product
        yield Operation("attention scores", "forward", format, flops, 4 * moved)
        yield Operation("attention scores", "backward", format, 2 * flops, 8 * moved)

    def _explicit(self) -> Iterator[Operation]:
        """Six products, each with two tensors of N x D and the table of scores."""
        value, stream = self.precision.value_bytes, self.precision.stream_bytes
        flops = 2 * self.hidden * self.sequence * self.layers
        moved = value * (2 * self.hidden + self.scores) * self.layers
        for phase, count in (("forward", 2), ("backward", 4)):
            format = self.precision.product
            yield Operation("attention scores", phase, format, count * flops, count * moved)
        scores = self.layers * self.scores
        yield from self._vector("softmax", self.layers * self.hidden, SCALE, 2 * value, 2 * value)
        yield from self._vector("softmax", scores, MASK, 2 * value, 2 * value)
        yield from self._vector("softmax", scores, SOFTMAX, 2 * stream, 3 * stream)

    def _vector(
        self, part: str, values: int, flops: tuple[int, int], forward: int, backward: int
    ) -> Iterator[Operation]:
        """`forward` and `backward`: bytes moved per value."""
        yield Operation(part, "forward", VECTOR, flops[0] * values, forward * values)
        yield Operation(part, "backward", VECTOR, flops[1] * values, backward * values)

    def _embedding(self) -> Iterator[Operation]:
        """Look up and add positions; backward fills both tables' gradients and adds into them."""
        width, config = self.precision.stream_bytes, self.config
        table = config.vocab_size * config.model_dim
        positions = self.sequence * config.model_dim
        forward = 2 * self.hidden + 2 * self.hidden + positions
        backward = self.hidden + config.context_length * config.model_dim + table + 3 * self.hidden
        backward += 3 * table * config.tied_embeddings  # the output layer's gradient is added
        yield Operation("embedding", "forward", VECTOR, self.hidden, width * forward)
        yield Operation("embedding", "backward", VECTOR, 2 * self.hidden, width * backward)

    def _casts(self) -> Iterator[Operation]:
        """Copies into another format: autocast's, and FP8's, which must first find a scale."""
        precision, config = self.precision, self.config
        value, stream = precision.value_bytes, precision.stream_bytes
        shapes = self.projections + self.feed_forward
        weights = self.layers * sum(num_in * num_out for num_in, num_out in shapes)
        if stream != value:
            crossing = (2 * self.layers + 1) * self.hidden + self.logits
            crossing += weights + config.vocab_size * config.model_dim
            crossing += 2 * self.layers * self.scores * (config.attention == "explicit")
            back = crossing + 2 * self.layers * self.hidden  # the branches' gradients
            for phase, count in (("forward", crossing), ("backward", back)):
                yield Operation("casts", phase, VECTOR, count, (stream + value) * count)
        if precision.linear_bytes != value:
            inputs = self.layers * self.tokens * sum(num_in for num_in, _ in shapes) + weights
            outputs = self.layers * self.tokens * sum(num_out for _, num_out in shapes)
            moved = 2 * value + precision.linear_bytes  # read for the maximum, read, written
            for phase, count in (("forward", inputs), ("backward", outputs)):
                yield Operation("casts", phase, VECTOR, 2 * count, moved * count)

    def _optimizer(self) -> Operation:
        """AdamW in one pass: masters and both averages, the gradient, and the 16-bit weight."""
        weight = self.precision.weight_bytes
        moved = ADAM_BYTES + weight + weight * (weight < 4)
        total = count_parameters(self.config).total
        return Operation("optimizer", "optimizer", VECTOR, ADAM_FLOPS * total, moved * total)
