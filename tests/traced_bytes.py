"""Bytes that every operation of a training step reads and writes, seen by torch's dispatcher."""

from collections import Counter

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

VECTOR_PARTS = {
    "native_layer_norm": "norms",
    "native_layer_norm_backward": "norms",
    "gelu": "GELU",
    "gelu_backward": "GELU",
    "_log_softmax": "loss",
    "_log_softmax_backward_data": "loss",
    "_softmax": "softmax",
    "_softmax_backward_data": "softmax",
    "masked_fill": "softmax",
    "div": "softmax",
    "_to_copy": "casts",
    "bmm": "attention scores",
    "_scaled_dot_product_flash_attention_for_cpu": "attention scores",
    "_scaled_dot_product_flash_attention_for_cpu_backward": "attention scores",
}
WHOLE = ("mm", "_to_copy")  # weights count


class TracedBytes(TorchDispatchMode):
    """`bytes[part, phase]` of one step of a GPT without biases.

    Statistics and weights of norms, which are smaller than N x D, do not count.
    """

    def __init__(self, config, batch_size):
        super().__init__()
        self.config, self.tokens = config, batch_size * config.context_length
        self.bytes, self.phase = Counter(), "forward"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        read, written = tensors((args, kwargs)), tensors(result)
        if name == "nll_loss_backward":  # it reads none of the log-probabilities
            self.bytes["loss", self.phase] += size(written)
        part = self.part_of(name, read)
        if part:
            smallest = 0 if name in WHOLE else self.tokens * self.config.model_dim
            moved = [each for each in read + written if each.numel() >= smallest]
            self.bytes[part, self.phase] += size(moved)
        return result

    def part_of(self, name, read):
        if name == "mm":
            return self.product_of(*read)
        if name == "add" and all(each.dim() == 3 for each in read):  # positions are T x D
            return "residual"
        return VECTOR_PARTS.get(name)

    def product_of(self, left, right):
        """Which layer's product this is: its weight's shape is what is left beside N."""
        sizes = [*left.shape, right.shape[1]]
        sizes.remove(self.tokens)
        if self.config.feed_forward_dim in sizes:
            return "feed-forward"
        return "output layer" if self.config.vocab_size in sizes else "attention projections"


def tensors(tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def size(several) -> int:
    return sum(each.numel() * each.element_size() for each in several)


def trace_step(model, config, batch_size, loss_of, batch):
    """Bytes by (part, phase) of forward and backward."""
    with TracedBytes(config, batch_size) as traced:
        loss = loss_of(model, *batch)
        traced.phase = "backward"
        loss.backward()
    return traced.bytes
