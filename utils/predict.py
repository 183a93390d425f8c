"""Memory of a training step predicted with a pencil: formulas only, nothing is run.

How it works: what a step keeps is a sum over layers (weights, optimizer state, activations saved
for backward); the peak is the highest of five moments of the step. Every formula follows from the
operations in utils/model.py, and the tests hold it against the meter, to the byte where it claims
so. Left out: scratch memory inside kernels, and the allocator's rounding on a GPU.

Letters: B batch, T tokens, D model width, F feed-forward width, H heads, V vocabulary.
"""

from dataclasses import dataclass

from utils.config import GPTConfig
from utils.costs import count_parameters, tensor_sizes

TOKEN_BYTES = 8  # tokens and targets are int64


@dataclass(frozen=True)
class StepPrediction:
    """Live bytes at the moments that can be the peak of one training step."""

    held_bytes: int  # weights, buffers, optimizer state, batch: there all the time
    moments: dict[str, int]

    @property
    def peak_moment(self) -> str:
        """Which moment is the highest."""
        return max(self.moments, key=self.moments.__getitem__)

    @property
    def peak_bytes(self) -> int:
        """Live bytes at the highest moment."""
        return self.moments[self.peak_moment]


def block_activation_bytes(
    config: GPTConfig, batch_size: int, num_tokens: int, value_bytes: int = 4
) -> int:
    """What one block saves for its backward pass, in bytes (no dropout)."""
    token_values = batch_size * num_tokens  # one value per token
    width = config.model_dim
    norms = 2 * (token_values * width + 2 * token_values)  # input, mean, 1/std, twice
    into_linears = 3 * token_values * width  # of the attention, its output layer, widen
    query_key_value = token_values * qkv_width(config)
    wide = 2 * token_values * config.feed_forward_dim  # around the GELU
    per_head = token_values * config.num_heads
    attention = per_head * num_tokens if config.attention == "explicit" else per_head
    saved = norms + into_linears + query_key_value + wide + attention
    return saved * value_bytes


def qkv_width(config: GPTConfig) -> int:
    """Values per token that attention keeps of queries, keys and values."""
    if config.attention == "explicit" or config.kv_dim == config.model_dim:
        return 3 * config.model_dim
    # Shared key heads: the fused kernel keeps the slim original and two repeated copies.
    return config.model_dim + 2 * config.kv_dim + 2 * config.model_dim


def head_activation_bytes(
    config: GPTConfig, batch_size: int, num_tokens: int, value_bytes: int = 4
) -> int:
    """What the last norm, the output layer and the loss save: the log-probabilities dominate."""
    tokens = batch_size * num_tokens
    per_token = 2 * config.model_dim + 2 + config.vocab_size
    return tokens * per_token * value_bytes + value_bytes  # and one scalar, the loss's weight


def saved_activation_bytes(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """All that autograd keeps for backward in fp32 without dropout, the batch included."""
    block = block_activation_bytes(config, batch_size, num_tokens)
    head = head_activation_bytes(config, batch_size, num_tokens)
    return config.num_layers * block + head + 2 * batch_size * num_tokens * TOKEN_BYTES


def mask_buffer_bytes(config: GPTConfig) -> int:
    """Explicit attention keeps one T x T table of booleans a layer."""
    if config.attention != "explicit":
        return 0
    return config.num_layers * config.context_length**2


def predict_step(
    config: GPTConfig, batch_size: int, num_tokens: int = 0, state_values: int = 2
) -> StepPrediction:
    """Peak memory of an fp32 step (forward, backward, optimizer) that starts without gradients.

    `state_values` is what the optimizer keeps per parameter: 2 for Adam, 1 for momentum, 0 for
    plain SGD. The five moments come from following utils/model.py operation by operation.
    """
    num_tokens = num_tokens or config.context_length
    parameters = count_parameters(config)
    tokens = batch_size * num_tokens
    hidden, logits = 4 * tokens * config.model_dim, 4 * tokens * config.vocab_size
    wide = 4 * tokens * config.feed_forward_dim
    held = (1 + state_values) * parameters.total * 4 + mask_buffer_bytes(config)
    held += 2 * tokens * TOKEN_BYTES
    block = block_activation_bytes(config, batch_size, num_tokens)
    blocks = config.num_layers * block
    head = head_activation_bytes(config, batch_size, num_tokens)
    # Gradients that exist once backward has left the output layer, and those of one whole block.
    head_gradients = 4 * (parameters.token_embedding + parameters.final_norm)  # output: V x D too
    block_gradients = 4 * parameters.block
    narrow_gradients = 4 * config.model_dim * (config.feed_forward_dim + config.bias)
    moments = {
        "loss backward": blocks + head + 2 * logits,
        "last feed-forward": blocks + head_gradients + narrow_gradients + hidden + wide,
        "last attention": blocks - block + head_gradients
        + _attention_peak(config, batch_size, num_tokens),
        "first feed-forward": block + head_gradients + narrow_gradients + hidden + wide
        + (config.num_layers - 1) * block_gradients,
        "optimizer": 4 * parameters.total + adam_scratch_bytes(config) * (state_values == 2),
    }
    return StepPrediction(held, {name: held + live for name, live in moments.items()})


def adam_scratch_bytes(config: GPTConfig) -> int:
    """Adam's square root and quotient of one tensor, while the last tensor's quotient lives on."""
    sizes = tensor_sizes(config)
    return 4 * max(before + 2 * size for before, size in zip([0, *sizes], sizes, strict=False))


def _attention_peak(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """Live bytes while the last block's softmax runs backward, gradients of its layers included."""
    scores = 4 * batch_size * config.num_heads * num_tokens**2
    hidden_bytes = 4 * batch_size * num_tokens * config.model_dim
    gradients = 4 * config.model_dim * (2 * config.feed_forward_dim + config.model_dim)
    if config.attention == "fused":
        return 10 * hidden_bytes + gradients
    return 3 * scores + 6 * hidden_bytes + gradients
