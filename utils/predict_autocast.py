"""What autocast saves and what it adds, predicted to the byte.

How it works: under autocast a tensor that feeds a matrix product exists in 16 bits, while the
residual stream, the norms and the loss stay in fp32. The weights of the products are copied, so
their 16-bit copies are kept for backward beside the fp32 originals. Formulas for utils/model.py
without dropout; the tests hold them against `saved_bytes` under both rule sets.
"""

from utils.config import GPTConfig
from utils.predict import qkv_width

LOW, FULL = 2, 4  # bytes of a value in 16 bits and in fp32


def autocast_block_bytes(
    config: GPTConfig, batch_size: int, num_tokens: int, softmax_in_fp32: bool = False
) -> int:
    """Bytes that one block keeps for backward under autocast, weight copies not counted."""
    tokens, width = batch_size * num_tokens, config.model_dim
    norms = 2 * tokens * (width + 2) * FULL  # the residual stream is fp32
    products = tokens * (3 * width + qkv_width(config)) * LOW
    gelu = 2 * tokens * config.feed_forward_dim * LOW
    if config.attention == "explicit":
        # CUDA's rules compute softmax in fp32 and keep that beside the 16-bit copy of it.
        scores = tokens * config.num_heads * num_tokens * (LOW + FULL * softmax_in_fp32)
    else:
        scores = tokens * config.num_heads * FULL  # the fused kernel's row sums
    return norms + products + gelu + scores


def autocast_head_bytes(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """Bytes that the last norm, the output layer and the loss keep: the loss is in fp32."""
    tokens = batch_size * num_tokens
    norm = tokens * (config.model_dim + 2) * FULL
    return norm + tokens * config.model_dim * LOW + tokens * config.vocab_size * FULL + FULL


def weight_copy_bytes(config: GPTConfig) -> int:
    """Bytes of the 16-bit copies of all weights that a product uses; biases are not kept."""
    width = config.model_dim
    linears = width * (width + 2 * config.kv_dim) + width * width
    linears += 2 * width * config.feed_forward_dim
    return LOW * (config.num_layers * linears + config.vocab_size * width)


def autocast_saved_bytes(
    config: GPTConfig, batch_size: int, num_tokens: int, softmax_in_fp32: bool = False
) -> int:
    """All that is kept for backward under autocast: activations, batch and weight copies."""
    block = autocast_block_bytes(config, batch_size, num_tokens, softmax_in_fp32)
    head = autocast_head_bytes(config, batch_size, num_tokens)
    batch = 2 * batch_size * num_tokens * 8
    return config.num_layers * block + head + batch + weight_copy_bytes(config)
