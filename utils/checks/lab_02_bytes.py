"""Judges of lab 02, bytes: every truth is read off autograd while the check runs."""

import math
from collections.abc import Callable

from utils.checks.diagnose import require_number, require_value
from utils.checks.engine import exercise
from utils.checks.helpers import require
from utils.checks.truth_02 import gated_layer_bytes, largest_share, least_batch, share_saved
from utils.config import GPTConfig

LAB = "lab_02_manual_autocast"
GATED_TRIALS = ((5, 8, 24, 1), (6, 16, 40, 3), (1, 32, 48, 4))  # tokens, widths, micro-batches
BATCH_TRIALS = (
    (GPTConfig(1, 2, 16, 8, 32), 8, 0.05),
    (GPTConfig(2, 2, 16, 8, 16, attention="explicit"), 8, 0.3),
    (GPTConfig(1, 2, 16, 16, 64), 16, 0.2),
    (GPTConfig(1, 2, 16, 8, 32), 8, 0.45),
)


@exercise(
    "02.3",
    "the bill of a gated layer",
    hints=[
        "Go through forward() and ask of each operation which of its inputs the backward needs, "
        "in which dtype, and whether the cache knows it already.",
        "Per token: the input twice (two linears cast it, and activations are not cached) and four "
        "values of the hidden width. Once for all micro-batches: the copies of three weights.",
    ],
    lab=LAB,
)
def judge_gated(answer: Callable) -> str:
    """What a gated layer keeps under autocast, exactly."""
    for trial in GATED_TRIALS:
        tokens, width, hidden, num_micro_batches = trial
        truth = gated_layer_bytes(*trial)
        rows, copies = num_micro_batches * tokens, 6 * width * hidden
        mistakes = {
            "the input is cast twice: autocast keeps copies of weights, not of activations": (
                truth - 2 * rows * width
            ),
            "the 16-bit copies of the weights are kept as well": truth - copies,
            "micro-batches of one context share the copies of the weights": (
                truth + (num_micro_batches - 1) * copies
            ),
            "every micro-batch keeps its own activations until the one backward": (
                (truth - copies) // num_micro_batches + copies
            ),
            "a product of two tensors needs both for its backward": truth - 4 * rows * hidden,
            "silu needs its input for its backward": truth - 2 * rows * hidden,
            "these are fp32's 4 bytes per value; what feeds a product has 2": 2 * truth,
            "these are numbers of values; each takes 2 bytes": truth / 2,
        }
        what = f"The bill of {num_micro_batches} micro-batches of {tokens} tokens"
        require_value(what, answer(*trial), truth, mistakes, rtol=0.0)
    return f"Exact to the byte in three layers: {truth:,} bytes in the last one."


@exercise(
    "02.4",
    "the batch that pays",
    hints=[
        "Every further sequence adds the same bytes with autocast, and the same in fp32. What "
        "share can a very large batch save at most?",
        "Compare bill(2) - bill(1) of both: 1 minus their ratio is a share that no batch reaches. "
        "Below it, count up from 1 until the share is there.",
    ],
    seconds=60,
    lab=LAB,
)
def judge_least_batch(answer: Callable) -> str:
    """The smallest batch that saves a given share, held against measured bytes."""
    for config, num_tokens, share in BATCH_TRIALS:
        truth, got = least_batch(config, num_tokens, share), answer(config, num_tokens, share)
        require_number("The batch size", got)
        is_whole = math.isfinite(got) and got == int(got)
        require(is_whole, "A batch size is a whole number", got=got, likely="round up")
        what = f"The batch that saves {share:.0%} is off"
        limit = largest_share(config, num_tokens)
        require(got == truth, what, truth, got, _batch_mistake(got, truth, num_tokens, limit))
        if truth:
            reached = share_saved(config, truth, num_tokens)
            sentence = f"With {truth} sequences autocast saves {reached:.1%} of the bytes"
            last = f"{sentence}, with one fewer {share_saved(config, truth - 1, num_tokens):.1%}"
    return f"{last}; 45 % is out of reach in the last trial, where the limit is {limit:.1%}."


def _batch_mistake(got: float, truth: int, num_tokens: int, limit: float) -> str:
    """The sentence for a wrong batch size."""
    if truth == 0:
        return f"say 0 when no batch is large enough: here the share stays below {limit:.1%}"
    if (truth - 1) * num_tokens < got <= truth * num_tokens:
        return "this is a number of tokens; asked are sequences"
    likely = {
        0: f"some batch does: the share grows up to {limit:.1%}",
        1: "the 16-bit copies of the weights are missing: small batches pay for them, too",
        truth - 1: "one too few: this batch saves less than was asked for",
        truth + 1: "one too many: the batch before saves enough",
    }
    return likely.get(int(got), "")
