"""What one layer of the GPT costs, with a pencil: bytes at each moment, and forward FLOPs.

How it works: forward and backward of a layer are lists of words, operation by operation as in
utils/model.py: at `+wide` a tensor of that size comes, at `-wide` it goes, at `~wide` it goes
unless backward needs it. Added up they give the same `LayerCost`, to the byte, as measuring the
layer (`measure_layers`) does; the tests compare the two on many shapes.

Left out: dropout, sequences of one token, and what the allocator of a GPU rounds. FLOPs count
attention in full; torch's counter does not see the fused kernel of a CPU.

Letters: B batch, T tokens, D model width, F feed-forward width, H heads, V vocabulary.
"""

from dataclasses import replace
from itertools import accumulate

from utils.config import GPTConfig
from utils.techniques.chain import LayerCost

VALUE_BYTES = 4  # fp32
NORM = "+hidden +stats ~stats "
LOSS_FORWARD = NORM + "+logits ~hidden +logits +scalar +scalar ~scalar ~logits -logits"
LOSS_BACKWARD = (
    "+scalar +logits -scalar -scalar +logits -logits -logits +table +hidden -logits -hidden "
    "-table +hidden +norm -hidden -stats -norm"
)


def block_cost(
    config: GPTConfig,
    batch_size: int,
    num_tokens: int,
    runs_again: bool = False,
    stops_early: bool = False,
) -> LayerCost:
    """One block as it is measured alone, or as it runs inside a checkpoint.

    `runs_again`: in backward a kept input goes one moment earlier. `stops_early`: the forward run
    with a graph ends when all that backward needs is there, before the last product.
    """
    needed, last_product, backward = block_words(config, batch_size, runs_again)
    sizes = tensor_bytes(config, batch_size, num_tokens)
    flops = block_flops(config, batch_size, num_tokens)
    cost = _cost(sizes, needed + last_product, backward, "hidden", flops)
    if stops_early:
        return replace(cost, graph_peak_bytes=_walk(needed.replace("~", "0"), sizes)[0])
    return cost


def block_words(config: GPTConfig, batch_size: int, runs_again: bool) -> tuple[str, str, str]:
    """Forward until all is there that backward needs, the rest of forward, backward."""
    is_spread = batch_size > 1 and config.num_heads > 1
    needed = NORM + _attention(config, is_spread) + NORM + "+wide +wide "
    last_product = "~wide +hidden ~wide ~hidden +hidden -hidden ~hidden"
    backward = _feed_forward_backward(runs_again)
    return needed, last_product, backward + _attention_backward(config, is_spread, runs_again)


def embed_cost(
    config: GPTConfig, batch_size: int, num_tokens: int, table_waits: bool = False
) -> LayerCost:
    """Tokens to x_BTD; the gradients of both tables are as large as the tables.

    `table_waits`: in a whole step with tied embeddings the output layer's gradient is there already
    and is added to the embedding's.
    """
    forward, waits = "+hidden +hidden -hidden", "+table " * table_waits
    added = "+table -table -table " if table_waits else ""
    backward = f"{waits}+hidden +sequence +table -hidden {added}-table +positions -sequence"
    return _cost(tensor_bytes(config, batch_size, num_tokens), forward, backward, "hidden", 0)


def loss_cost(config: GPTConfig, batch_size: int, num_tokens: int) -> LayerCost:
    """x_BTD to the loss, through the last norm and the output layer."""
    flops = 2 * batch_size * num_tokens * config.vocab_size * config.model_dim
    sizes = tensor_bytes(config, batch_size, num_tokens)
    return _cost(sizes, LOSS_FORWARD, LOSS_BACKWARD, "scalar", flops)


def block_flops(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """Matrix products of one block's forward pass, attention in full."""
    width = config.model_dim
    linears = width * (2 * width + 2 * config.kv_dim) + 2 * width * config.feed_forward_dim
    return 2 * batch_size * num_tokens * (linears + 2 * num_tokens * width)


def _attention(config: GPTConfig, is_spread: bool) -> str:
    """Forward after the norm: one product for q, k, v; the core; the output layer; the residual."""
    return f"+qkv {attention_core(config, is_spread)}~hidden +hidden -hidden "


def attention_core(config: GPTConfig, is_spread: bool) -> str:
    """From q, k, v to the weighted sum of values.

    `is_spread`: heads of several sequences do not lie one after the other, so a batched product
    copies them first.
    """
    is_shared = config.kv_heads < config.num_heads  # keys and values are repeated for the queries
    if config.attention == "fused":
        copies, ends = ("+hidden +hidden ", "~hidden ~hidden ") if is_shared else ("", "")
        core = f"{copies}+hidden +sums ~sums +hidden ~hidden ~qkv {ends}"
    else:  # keys, values, queries / sqrt(K); scores, masked scores, weights; their mean of values
        core = "+hidden +hidden +hidden "
        core += "+hidden +scores ~hidden -hidden " if is_spread else "+scores ~hidden "
        core += "+scores -scores +scores +hidden ~scores "
        core += "-scores " if is_shared else "~hidden ~hidden -scores "
        # Several heads have to be brought together, which copies; one head lies right already.
        core += "+hidden +hidden ~hidden -hidden " if config.num_heads > 1 else "+hidden ~hidden "
        core += "-qkv ~hidden ~hidden " if is_shared else "-qkv "
    return core


def _feed_forward_backward(runs_again: bool) -> str:
    """From the gradient that arrives to that of the residual in the middle of the block."""
    narrow = "+wide +narrow " + _release("-wide", "width_bias", "", runs_again) + "-narrow "
    widen = "+hidden +narrow " + _release("-hidden", "wide_bias", "-wide", runs_again) + "-narrow "
    norm = "+hidden +norm -hidden -hidden -stats +hidden -hidden -hidden -norm "
    return "+hidden " + narrow + "+wide -wide -wide " + widen + norm


def _attention_backward(config: GPTConfig, is_spread: bool, runs_again: bool) -> str:
    """From there to the gradient of the block's input."""
    kept = "" if config.attention == "fused" else "-hidden"  # fused needs its result once more
    output = "+hidden +output " + _release(kept, "width_bias", "", runs_again) + "-output "
    joined = attention_core_backward(config, is_spread)
    product = "+hidden +project " + _release("-hidden", "qkv_bias", "-qkv", runs_again)
    norm = "+hidden +norm -hidden -stats +hidden -hidden -hidden -norm "
    return output + joined + product + "-project " + norm


def attention_core_backward(config: GPTConfig, is_spread: bool) -> str:
    """From the gradient of the weighted sum to that of q, k, v."""
    is_fused, is_shared = config.attention == "fused", config.kv_heads < config.num_heads
    if is_fused:
        core = "+hidden +hidden +hidden -hidden -hidden -qkv -sums "
        core += "-hidden -hidden " if is_shared else ""
    else:
        core = "+hidden -hidden " * is_spread
        core += "+scores +hidden -hidden -hidden +scores -scores -scores +scores -scores "
        core += "+hidden +hidden -scores -hidden -hidden +hidden -hidden "
    sums = "+shared -hidden +shared -hidden " if is_shared else ""
    num_copies = 0 if is_fused or config.num_heads == 1 else 2 - is_shared
    return core + sums + "+hidden -hidden " * num_copies + "+qkv -hidden -shared -shared "


def _release(kept: str, bias: str, gradient: str, runs_again: bool) -> str:
    """The end of a linear layer's backward: the bias's gradient, and what is needed no more.

    Autograd sums the bias's gradient up when the product's node is done. A plain graph still holds
    the node's kept input then; a checkpoint has handed it out, and it is gone.
    """
    first, then = (kept, f"+{bias}") if runs_again else (f"+{bias}", kept)
    return f"{first} {then} {gradient} -{bias} "


def tensor_bytes(config: GPTConfig, batch_size: int, num_tokens: int) -> dict[str, int]:
    """Bytes of everything that comes and goes."""
    width, wide, tokens = config.model_dim, config.feed_forward_dim, batch_size * num_tokens
    qkv = width + 2 * config.kv_dim
    values = {
        "hidden": tokens * width,
        "stats": 2 * tokens,  # a norm's mean and 1 / deviation
        "qkv": tokens * qkv,
        "shared": tokens * config.kv_dim,
        "scores": tokens * config.num_heads * num_tokens,
        "sums": tokens * config.num_heads,  # what the fused kernel keeps of the softmax
        "wide": tokens * wide,
        "logits": tokens * config.vocab_size,
        "scalar": 1,
        "sequence": num_tokens * width,
        # The rest are gradients of weights.
        "norm": width * (1 + config.bias),
        "project": width * qkv,
        "output": width * width,
        "narrow": width * wide,
        "table": config.vocab_size * width,
        "positions": config.context_length * width,
        "qkv_bias": qkv * config.bias,
        "width_bias": width * config.bias,
        "wide_bias": wide * config.bias,
    }
    return {name: VALUE_BYTES * size for name, size in values.items()}


def _cost(
    sizes: dict[str, int], forward: str, backward: str, output: str, flops: int
) -> LayerCost:
    plain_peak, _ = _walk(forward.replace("~", "-"), sizes)
    graph_peak, held = _walk(forward.replace("~", "0"), sizes)
    saved = held - sizes[output]
    backward_peak, _ = _walk(backward, sizes, saved)
    return LayerCost(flops, sizes[output], saved, plain_peak, graph_peak, backward_peak)


def _walk(words: str, sizes: dict[str, int], alive: int = 0) -> tuple[int, int]:
    """(highest, last) bytes alive when tensors come and go in this order."""
    signs = {"+": 1, "-": -1, "0": 0}
    moments = list(accumulate((signs[w[0]] * sizes[w[1:]] for w in words.split()), initial=alive))
    return max(moments), moments[-1]
