"""What comes and goes in memory while a layer computes, in three precisions, as words.

How it works: the words of `utils.predict_layers` are the fp32 step of utils/model.py, operation by
operation. This module says them in two more precisions. In "16-bit weights" all sizes are half, but
the loss is computed in fp32. Under "autocast" the residual stream, the norms and the loss are fp32,
what a product reads is a copy in 16 bits (`low_...`), and so is the weight; its gradient arrives in
16 bits and is cast. `+x` comes, `-x` goes, `~x` goes unless backward needs it, `=x` comes and stays
as long as autocast remembers it, or backward needs it.

Left out: dropout; 16-bit copies of biases; that a GPU's autocast computes an explicit softmax in
fp32 and keeps that beside its copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import GPTConfig
from utils.predict_layers import (
    LOSS_BACKWARD,
    LOSS_FORWARD,
    NORM,
    attention_core,
    attention_core_backward,
    block_words,
    tensor_bytes,
)

REGIMES = ("fp32", "16-bit weights", "autocast")
WEIGHTS = (
    "norm", "project", "output", "narrow", "table", "positions", "qkv_bias", "width_bias",
    "wide_bias",
)  # fmt: skip
EMBED_FORWARD = "+hidden +hidden -hidden "
EMBED_BACKWARD = "+hidden +sequence {tables}+positions -sequence -positions"
_TABLE = "+table -hidden -table "
_TIED_TABLES = "+spare_table -hidden +spare_table -spare_table -spare_table "
_LONG_LOSS_FORWARD = "+long_logits -{0}logits +long_logits +scalar +scalar ~scalar "
_LONG_LOSS_FORWARD += "~long_logits -long_logits"
_LONG_LOSS_BACKWARD = "+scalar +long_logits -scalar -scalar +long_logits -long_logits -long_logits "
_LONG_LOSS_BACKWARD += "+{0}logits -long_logits "


@dataclass(frozen=True)
class LayerWords:
    """One layer: forward until backward has all it needs, the rest of forward, backward."""

    needed: str
    rest: str
    backward: str


def embed_words(config: GPTConfig) -> LayerWords:
    """Tokens to x_BTD. A tied table's gradient waits since the loss: both add up to a third."""
    tables = _TIED_TABLES if config.tied_embeddings else _TABLE
    return LayerWords(EMBED_FORWARD, "", EMBED_BACKWARD.format(tables=tables))


def words_of_block(
    config: GPTConfig, batch_size: int, regime: str, runs_again: bool
) -> LayerWords:
    """One block. Only under autocast it is another sequence of operations."""
    if regime != "autocast":
        return LayerWords(*block_words(config, batch_size, runs_again))
    is_spread = batch_size > 1 and config.num_heads > 1
    core = _low(attention_core(config, is_spread))
    attention = f"=low_project +low_hidden +low_qkv =low_output {core}~low_hidden -hidden "
    widen = "=low_narrow +low_hidden +low_wide ~low_hidden +low_wide ~low_wide =low_narrow "
    needed = NORM + attention + "+hidden -low_hidden " + NORM + widen
    rest = "+low_hidden ~low_wide -hidden +hidden -low_hidden ~hidden"
    return LayerWords(needed, rest, _autocast_backward(config, is_spread))


def words_of_loss(regime: str) -> LayerWords:
    """x_BTD to the loss: the last norm, the output layer, cross-entropy."""
    if regime == "fp32":
        return LayerWords(LOSS_FORWARD, "", LOSS_BACKWARD)
    if regime == "16-bit weights":
        forward = NORM + "+logits ~hidden "
        backward = _LONG_LOSS_BACKWARD.format("") + "+table +hidden -logits -hidden -table "
        backward += "+hidden +norm -hidden -stats -norm"
        return LayerWords(forward, _LONG_LOSS_FORWARD.format(""), backward)
    forward = NORM + "=low_table +low_hidden ~low_hidden +low_logits -hidden "
    backward = _LONG_LOSS_BACKWARD.format("low_")
    backward += "+low_table +low_hidden -low_logits -low_table -low_hidden +hidden -low_hidden "
    backward += "+table -low_table -table +hidden +norm -hidden -stats -norm"
    return LayerWords(forward, _LONG_LOSS_FORWARD.format("low_"), backward)


def sizes_of(
    config: GPTConfig, batch_size: int, num_tokens: int, regime: str
) -> dict[str, int]:
    """Bytes of every word."""
    sizes = tensor_bytes(config, batch_size, num_tokens)
    if regime == "16-bit weights":
        halved = {name: size // 2 for name, size in sizes.items()}
        low = halved | {"sums": sizes["sums"], "scalar": sizes["scalar"]}
    else:
        low = sizes | {f"low_{name}": size // 2 for name, size in sizes.items()}
    return low | {"long_logits": sizes["logits"], "spare_table": low["table"]}


def _autocast_backward(config: GPTConfig, is_spread: bool) -> str:
    """Each product's gradient of a weight comes in 16 bits, and is cast when its copy is gone."""
    norm = "+hidden +norm -hidden -hidden -stats +hidden -hidden -hidden -norm "
    narrow = "+hidden +low_hidden +low_wide +low_narrow -low_hidden -low_wide "
    gelu = "+low_wide -low_wide -low_wide "
    widen = "+low_hidden +low_narrow -low_wide -low_hidden "
    kept = "" if config.attention == "fused" else "-low_hidden "  # fused needs its result again
    output = f"+low_hidden +low_hidden +low_output -low_hidden {kept}"
    core = _low(attention_core_backward(config, is_spread))
    project = "+low_hidden +low_project -low_qkv -low_hidden "
    return (
        narrow + _cast("narrow") + gelu + widen + "-low_narrow +hidden -low_hidden "
        + _cast("narrow", "") + norm + output + _cast("output") + core + project
        + "-low_project +hidden -low_hidden " + _cast("project", "") + norm
    )  # fmt: skip


def _cast(weight: str, copy: str | None = None) -> str:
    """The copy that the product read goes, the gradient in fp32 comes, the one in 16 bits goes."""
    gone = f"-low_{weight} " if copy is None else copy
    return f"{gone}+{weight} -low_{weight} -{weight} "


def _low(words: str) -> str:
    """The same operations in 16 bits; the fused kernel's sums stay in fp32."""
    names = ("hidden", "qkv", "shared", "scores")
    for name in names:
        words = words.replace(name, f"low_{name}")
    return words
