"""Judge of lab 03, the bill: what O2 holds at two moments of a step, under the meter."""

from collections.abc import Callable

from utils.checks.diagnose import require_function, require_value
from utils.checks.engine import exercise
from utils.checks.helpers import require
from utils.checks.truth_03 import o2_held_bytes
from utils.config import GPTConfig
from utils.costs import count_parameters, tensor_sizes

TRIALS = (
    (GPTConfig(2, 2, 32, 16, 64), 1),
    (GPTConfig(3, 4, 32, 16, 128, tied_embeddings=True), 3),
    (GPTConfig(1, 2, 64, 8, 32, bias=False), 2),
)


@exercise(
    "03.5",
    "the bill of O2",
    hints=[
        "Per parameter: which of fp16 weight, fp32 master, AdamW's two values, fp16 gradient and "
        "fp32 gradient is alive at each of the two moments?",
        "Always 2 + 4 + 8 bytes. At the end of the last backward 2 more, and 4 more if earlier "
        "micro-batches have been collected. At the step 4 more: collecting freed the fp16 ones. "
        "Plus 4 * len(tensor_sizes(config)).",
    ],
    seconds=60,
    lab="lab_03_loss_scaling",
)
def judge_o2_bytes(answer: Callable) -> str:
    """Bytes at the end of the last backward and at the step, exactly."""
    require_function(answer)
    for config, num_micro_batches in TRIALS:
        truth, got = o2_held_bytes(config, num_micro_batches), answer(config, num_micro_batches)
        is_pair = isinstance(got, (tuple, list)) and len(got) == 2
        require(is_pair, "Return two numbers: end of backward, step", got=got)
        swapped = tuple(got) == (truth[1], truth[0])
        require(not swapped, "The end of backward comes first, then the step", truth, got)
        of = f"of {config} with {num_micro_batches} micro-batch(es)"
        total = count_parameters(config).total
        shared = _shared_mistakes(truth, total, len(tensor_sizes(config)))
        mistakes = _backward_mistakes(truth[0], total, num_micro_batches) | shared[0]
        require_value(f"The end of backward {of}", got[0], truth[0], mistakes, rtol=0.0)
        mistakes = _step_mistakes(truth[1], total, num_micro_batches) | shared[1]
        require_value(f"The step {of}", got[1], truth[1], mistakes, rtol=0.0)
    return f"Exact to the byte; the last trial holds {truth[0]:,} and {truth[1]:,} bytes."


def _shared_mistakes(
    truth: tuple[int, int], total: int, num_tensors: int
) -> tuple[dict[str, float], ...]:
    """What goes wrong at both moments alike."""
    return tuple(
        {
            "AdamW's step counts are missing, 4 bytes for each tensor": value - 4 * num_tensors,
            "AdamW keeps one step count for each tensor, not one in all": value
            - 4 * num_tensors + 4,
            "the masters (4 bytes per parameter) or half of AdamW's two fp32 values are missing": (
                value - 4 * total
            ),
            "AdamW's values belong to the masters: two of 4 bytes each": value - 8 * total,
            "the fp16 weights live beside their masters, and fp16 gradients come out of backward": (
                value - 2 * total
            ),
            "the model is fp16, weights and gradients alike: 2 bytes each": value + 2 * total,
        }
        for value in truth
    )  # fmt: skip


def _backward_mistakes(truth: int, total: int, num_micro_batches: int) -> dict[str, float]:
    if num_micro_batches == 1:
        return {"fp32 gradients exist only once something was collected": truth + 4 * total}
    return {
        "the fp32 gradients of the earlier micro-batches are alive": truth - 4 * total,
        "collected micro-batches leave one fp32 gradient behind, however many they were": (
            truth + 4 * total * (num_micro_batches - 2) if num_micro_batches > 2 else -1
        ),
    }


def _step_mistakes(truth: int, total: int, num_micro_batches: int) -> dict[str, float]:
    return {
        "collecting frees the fp16 gradients: at the step only fp32 ones live": truth + 2 * total,
        "the optimizer steps on fp32 gradients, not fp16": truth - 2 * total,
        "the micro-batches add up in one fp32 gradient": (
            truth + 4 * total * (num_micro_batches - 1) if num_micro_batches > 1 else -1
        ),
    }
