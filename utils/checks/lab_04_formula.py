"""Judge of lab 04, the formula: a parallel block's bytes, read off autograd and the meter."""

from collections.abc import Callable

from utils.checks.diagnose import require_function, require_value
from utils.checks.engine import exercise
from utils.checks.helpers import require
from utils.checks.truth_04 import parallel_bytes

TRIALS = ((3, 2, 8, 32, 4, 80), (2, 1, 12, 24, 6, 56), (5, 3, 5, 16, 2, 40))


@exercise(
    "04.4",
    "the bill of a parallel block",
    hints=[
        "Go through the forward passes line by line and ask of each operation which tensors its "
        "backward needs. A storage counts once, however many operations save it or a view of it. "
        "saved_for_backward(block, lambda: block(x)) lists what one block keeps.",
        "The norm: x, one number per token, x times that number. Its result: once, for five "
        "linears. Query and attention's result: D each; key and value: D / H each; one number per "
        "token and head. The gated layer: 4 F. With checkpoints: every block's x, and all of one "
        "block, whose x is counted already.",
    ],
    seconds=60,
    lab="lab_04_checkpoint_by_hand",
)
def judge_formula(answer: Callable) -> str:
    """Both numbers of three unseen chains, to the byte."""
    require_function(answer)
    truths = [parallel_bytes(*trial) for trial in TRIALS]  # before anything of the learner's runs
    for trial, (plain, checkpointed) in zip(TRIALS, truths, strict=True):
        got = answer(*trial)
        is_pair = isinstance(got, (tuple, list)) and len(got) == 2
        require(is_pair, "Return two numbers: plain, checkpointed", got=got)
        names = "blocks, sequences, tokens, D, H, F"
        of = f"of {trial} ({names})"
        require_value(f"The plain chain {of}", got[0], plain, _plain_mistakes(trial), rtol=0.0)
        mistakes = _checkpointed_mistakes(trial)
        require_value(f"The checkpointed chain {of}", got[1], checkpointed, mistakes, rtol=0.0)
    return f"Exact to the byte; the last chain keeps {plain:,} or {checkpointed:,} bytes."


def _plain_mistakes(trial: tuple[int, ...]) -> dict[str, float]:
    """What a plain chain seems to keep if one thing is overlooked."""
    num_blocks, batch_size, num_tokens, model_dim, num_heads, hidden_dim = trial
    truth = parallel_bytes(*trial)[0]
    tokens = 4 * num_blocks * batch_size * num_tokens  # bytes of one value per token
    hidden, wide, head = tokens * model_dim, tokens * hidden_dim, tokens * model_dim // num_heads
    return {
        "the written-out norm keeps x times 1/rms too, for the gradient of its weight": (
            truth - hidden
        ),
        "one tensor like x too many: x is one storage although two operations save it, its square "
        "is not saved, and five linears share the norm's result": truth + hidden,
        "attention and the gated layer share one norm, with all that it keeps": (
            truth + 3 * hidden + tokens
        ),
        "each of the five linears keeps the same tensor: count it once": truth + 4 * hidden,
        "key and value have one head's width each; expand copies nothing": (
            truth + 2 * (hidden - head)
        ),
        "attention keeps a key and a value": truth - head,
        "attention keeps key and value as well": truth - 2 * head,
        "the norm keeps one number per token, 1/rms": truth - tokens,
        "rsqrt keeps its result and not its input: one number per token": truth + tokens,
        "attention keeps one number per token and head, to make its weights again": (
            truth - num_heads * tokens
        ),
        "fused attention keeps no tokens x tokens weights": (
            truth + num_heads * tokens * (num_tokens - 1)
        ),
        "silu needs its input, and its result is kept for the product": truth - wide,
        "a product of two tensors needs both, and narrow needs the product": truth - 2 * wide,
        "the gated layer keeps four tensors of its width: two inputs, silu's result, the product": (
            truth + wide
        ),
        "these are the bytes of one block": truth / num_blocks,
        "these are numbers of values; each takes 4 bytes": truth / 4,
    }


def _checkpointed_mistakes(trial: tuple[int, ...]) -> dict[str, float]:
    num_blocks, batch_size, num_tokens, model_dim, _, _ = trial
    plain, truth = parallel_bytes(*trial)
    hidden = 4 * batch_size * num_tokens * model_dim
    return {
        "the block that runs again is alive too, all of it": num_blocks * hidden,
        "one block runs again at a time, beside the inputs of all": plain / num_blocks,
        "that block's input is counted twice: it is one of the inputs": truth + hidden,
        "every block's input is kept, the last one's too": truth - hidden,
        "this is the plain chain: only one block has all its tensors": plain,
        "these are numbers of values; each takes 4 bytes": truth / 4,
    }
