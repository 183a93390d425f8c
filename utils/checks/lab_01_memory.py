"""Judges of lab 01, memory: every truth is measured by the meter while the check runs."""

from collections.abc import Callable

from utils.checks.diagnose import require_function, require_number, require_value
from utils.checks.engine import exercise
from utils.checks.helpers import require
from utils.checks.truth_01 import (
    dropout_bytes,
    held_when_frozen,
    peak_of_step,
    peak_when_accumulating,
)
from utils.config import GPTConfig
from utils.costs import count_parameters
from utils.predict import predict_step, saved_activation_bytes

LAB = "lab_01_the_bill"
FROZEN_TRIALS = ((GPTConfig(4, 4, 64, 64, 256), 1), (GPTConfig(6, 2, 32, 32, 512), 4))
ACCUMULATION_TRIALS = (
    (GPTConfig(3, 4, 64, 64, 1000), 4),
    (GPTConfig(4, 4, 128, 64, 64), 4),
    (GPTConfig(2, 2, 64, 128, 500, attention="explicit"), 2),
)
BATCH_TRIALS = ((GPTConfig(2, 4, 64, 64, 512), 5), (GPTConfig(3, 2, 64, 32, 256), 9))
DROPOUT_TRIALS = (
    (GPTConfig(2, 2, 32, 16, 64, dropout=0.1, attention="explicit"), 2, 12),
    (GPTConfig(3, 4, 32, 32, 128, dropout=0.2, attention="explicit"), 3, 24),
)


@exercise(
    "01.1",
    "the bill of fine-tuning",
    hints=[
        "Ask of every parameter, frozen or not: which of weight, gradient and Adam state exists?",
        "A frozen parameter costs 4 bytes, a trainable one 16; count_parameters(config).block "
        "counts one block.",
    ],
    lab=LAB,
)
def judge_frozen(answer: Callable) -> str:
    """Bytes held when only the last blocks are trained, to 0.5 %."""
    require_function(answer)
    for config, num_trainable in FROZEN_TRIALS:
        truth, trained = held_when_frozen(config, num_trainable)
        total = count_parameters(config).total
        mistakes = {
            "frozen parameters have no gradient and no Adam state": 16 * total,
            "the frozen weights are still in memory": 16 * trained,
            "Adam keeps two values for each trainable parameter": 4 * total + 4 * trained,
            "the gradients of the trainable parameters are missing": 4 * total + 8 * trained,
            "Adam keeps two values, not one": 4 * total + 8 * trained + 0.1,
            "these are numbers of values; each takes 4 bytes": truth / 4,
            "train the given number of blocks, not one": 4 * total
            + 12 * count_parameters(config).block,
        }
        what = f"The held memory of {config} with {num_trainable} block(s) trained"
        require_value(what, answer(config, num_trainable), truth, mistakes, rtol=0.005)
    return f"The meter agrees: {truth:,} bytes for the last trial."


@exercise(
    "01.2",
    "the peak with gradient accumulation",
    hints=[
        "At the second micro-batch, what is alive that was not alive at the first?",
        "Held: weights, gradients, Adam (16 bytes per parameter). On top: saved activations and, "
        "while the loss runs backward, two more tensors as large as the logits; or, in the last "
        "feed-forward layer, its wide gradient.",
    ],
    seconds=60,
    lab=LAB,
)
def judge_accumulation(answer: Callable) -> str:
    """Peak of a later micro-batch, to 1 %."""
    require_function(answer)
    worst = 0.0
    for config, batch_size in ACCUMULATION_TRIALS:
        truth, got = peak_when_accumulating(config, batch_size), answer(config, batch_size)
        total, tokens = count_parameters(config).total, config.context_length
        saved = saved_activation_bytes(config, batch_size, tokens)
        logits = 4 * batch_size * tokens * config.vocab_size
        mistakes = {
            "the gradients of the first micro-batch are still there": truth - 4 * total,
            "Adam's two values per parameter are missing": truth - 8 * total,
            "the loss's backward makes two tensors of the logits' size": truth - 2 * logits,
            "the loss's backward makes two tensors of the logits' size, not one": truth - logits,
            "saved activations of one micro-batch only: the others are gone": truth + saved,
            "the saved activations are missing": truth - saved,
            "these are numbers of values; each takes 4 bytes": truth / 4,
        }
        what = f"The peak of {config} with {batch_size} sequence(s)"
        require_value(what, got, truth, mistakes, rtol=0.01)
        worst = max(worst, abs(got / truth - 1))
    return f"Largest error on three unseen configurations: {worst:.1%} (allowed: 1 %)."


@exercise(
    "01.3",
    "the largest batch that fits",
    hints=[
        "predict_step(config, batch_size).peak_bytes answers for one batch size; try sizes.",
        "Count up while the next size still fits, and start from 0: nothing may fit at all.",
    ],
    lab=LAB,
)
def judge_batch(answer: Callable) -> str:
    """The largest batch whose measured peak stays within a budget."""
    require_function(answer)
    for config, size in BATCH_TRIALS:
        fits, too_large = peak_of_step(config, size), peak_of_step(config, size + 1)
        _require_batch(answer, config, (fits + too_large) // 2, size)
    config = BATCH_TRIALS[0][0]
    _require_batch(answer, config, peak_of_step(config, 1) // 2, 0)
    return f"It fits at {size} and not at {size + 1}: {fits:,} and {too_large:,} bytes."


def _require_batch(answer: Callable, config: GPTConfig, budget_bytes: int, truth: int) -> None:
    got = answer(config, budget_bytes)
    require_number("The batch size", got)
    require(got == int(got), "A batch size is a whole number", got=got, likely="round down")
    one = predict_step(config, 1)
    per_sequence = predict_step(config, 2).peak_bytes - one.peak_bytes
    likely = "" if got > 0 else "a batch size is not negative; 0 means that nothing fits"
    for value, mistake in (
        (truth + 1, "one too many: this is the first size that does not fit"),
        (max(truth, 1) - 1, "one too few: the next size fits as well"),
        (budget_bytes // one.peak_bytes, "weights and Adam are paid once, not per sequence"),
        (budget_bytes // per_sequence, "weights and Adam have to fit as well"),
        (1 if truth == 0 else None, "say 0 when not even one sequence fits"),
    ):
        likely = mistake if got == value else likely
    what = f"The batch of {config} for {budget_bytes:,} bytes is off"
    require(got == truth, what, truth, got, likely)


@exercise(
    "01.4",
    "the forgotten term",
    hints=[
        "List saved_for_backward with dropout 0.0 and 0.1, and look at what is new.",
        "Dropout keeps a mask wherever it acts: after the embeddings, twice in each block, and on "
        "the attention weights, whose thinned-out copy is kept as well. How many bytes is one "
        "value of a mask here?",
    ],
    seconds=30,
    lab=LAB,
)
def judge_dropout(answer: Callable) -> str:
    """What dropout adds to the saved bytes, exactly."""
    require_function(answer)
    for config, batch_size, num_tokens in DROPOUT_TRIALS:
        truth = dropout_bytes(config, batch_size, num_tokens)
        tokens = batch_size * num_tokens
        hidden, scores = 4 * tokens * config.model_dim, 4 * tokens * config.num_heads * num_tokens
        layers = config.num_layers
        mistakes = {
            "the mask after the embeddings is missing": truth - hidden,
            "each block has two masks outside attention": truth - layers * hidden,
            "the thinned-out attention weights are kept as well": truth - layers * scores,
            "dropout acts on the attention weights, too": truth - 2 * layers * scores,
            "the text has num_tokens, which may be less than the context": (
                dropout_bytes(config, batch_size, config.context_length)
            ),
            "on a CPU a mask has 4 bytes per value; 1 byte is a GPU's": (
                truth - (3 * ((1 + 2 * layers) * hidden + layers * scores)) // 4
            ),
            "this is all that is saved; only the forgotten part is asked": truth
            + saved_activation_bytes(config, batch_size, num_tokens),
            "these are numbers of values; each takes 4 bytes": truth / 4,
        }
        what = f"The term for {config}, batch_size={batch_size}, num_tokens={num_tokens},"
        got = answer(config, batch_size, num_tokens)
        require_value(what, got, truth, mistakes, rtol=0.0)
    return f"Exact to the byte: {truth:,} bytes in the last trial."
