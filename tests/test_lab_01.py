"""Lab 01's checks: the solution passes, the stub is not attempted, wrong answers are named."""

import pytest
import torch

from tests.lab_source import solution_functions, stub_keys
from utils.checks.engine import EXERCISES, judge
from utils.costs import count_parameters
from utils.predict import predict_step, saved_activation_bytes

LAB = "lab_01_the_bill"
ANSWERS = {
    "01.1": "fine_tuning_bytes",
    "01.2": "accumulation_peak_bytes",
    "01.3": "largest_batch",
    "01.4": "forgotten_bytes",
    "01.5": "training_bill",
}


@pytest.fixture(scope="module")
def solutions():
    return solution_functions(LAB)


def test_every_exercise_of_the_lab_has_a_judge_and_hints():
    judge("01.1", None)  # loads the labs
    ours = {key for key, each in EXERCISES.items() if each.lab == LAB}
    assert stub_keys(LAB) == sorted(ours) == list(ANSWERS)
    assert all(len(EXERCISES[key].hints) >= 2 for key in ours)


@pytest.mark.parametrize("key", ANSWERS)
def test_the_solution_passes(key, solutions):
    outcome = judge(key, solutions[ANSWERS[key]])
    assert outcome.status == "passed", outcome.message


@pytest.mark.parametrize("key", ANSWERS)
def test_the_stub_is_not_attempted(key):
    def stub(*_):
        raise NotImplementedError("your turn")

    assert judge(key, stub).status == "not attempted"


def total(config):
    return count_parameters(config).total


def block(config):
    return count_parameters(config).block


def logits(config, size):
    return 4 * size * config.context_length * config.vocab_size


def hidden(config, size, tokens):
    return 4 * size * tokens * config.model_dim


def scores(config, size, tokens):
    return 4 * size * tokens * tokens * config.num_heads


def dropout(config, size, tokens, embedding=1, residual=2, attention=2):
    masks = embedding + residual * config.num_layers
    attended = config.num_layers * attention * scores(config, size, tokens)
    return masks * hidden(config, size, tokens) + attended


def bill(*, factor=6, use=True, lose=True, gpus=True, wrong_loss=False):
    def answer(parameters, tokens, num_gpus, peak, utilisation, lost, usd):
        gpu_s = factor * parameters * tokens / (peak * (utilisation if use else 1))
        if wrong_loss:
            gpu_s *= 1 + lost
        elif lose:
            gpu_s /= 1 - lost
        hours = gpu_s / 3600
        return hours / num_gpus / 24, hours * usd / (1 if gpus else num_gpus)

    return answer


right = solution_functions(LAB)
WRONG = [
    ("01.1", lambda c, n: 16 * total(c), "frozen parameters have no gradient"),
    ("01.1", lambda c, n: 16 * n * block(c), "frozen weights are still in memory"),
    ("01.1", lambda c, n: 4 * total(c) + 4 * n * block(c), "Adam keeps two values for each"),
    ("01.1", lambda c, n: 4 * total(c) + 8 * n * block(c), "gradients of the trainable"),
    ("01.1", lambda c, n: right["fine_tuning_bytes"](c, n) / 4, "numbers of values"),
    ("01.1", lambda c, n: print("no return"), "without a return"),
    ("01.1", lambda c, n: float("nan"), "must be a finite number, not nan"),
    ("01.1", lambda c, n: torch.tensor(5.0), "with .item()"),
    ("01.1", 17.0, "without parentheses"),
    (
        "01.2",
        lambda c, b: right["accumulation_peak_bytes"](c, b) - 4 * total(c),
        "gradients of the first micro-batch",
    ),
    (
        "01.2",
        lambda c, b: right["accumulation_peak_bytes"](c, b) - 2 * logits(c, b),
        "two tensors of the logits' size",
    ),
    (
        "01.2",
        lambda c, b: right["accumulation_peak_bytes"](c, b) - logits(c, b),
        "logits' size, not one",
    ),
    (
        "01.2",
        lambda c, b: right["accumulation_peak_bytes"](c, b) - 8 * total(c),
        "Adam's two values",
    ),
    (
        "01.2",
        lambda c, b: right["accumulation_peak_bytes"](c, b)
        + saved_activation_bytes(c, b, c.context_length),
        "one micro-batch only",
    ),
    ("01.3", lambda c, m: right["largest_batch"](c, m) + 1, "one too many"),
    ("01.3", lambda c, m: right["largest_batch"](c, m) - 1, "one too few"),
    ("01.3", lambda c, m: m // predict_step(c, 1).peak_bytes, "paid once, not per sequence"),
    (
        "01.3",
        lambda c, m: m // (predict_step(c, 2).peak_bytes - predict_step(c, 1).peak_bytes),
        "weights and Adam have to fit",
    ),
    ("01.3", lambda c, m: max(1, right["largest_batch"](c, m)), "say 0 when not even one"),
    ("01.3", lambda c, m: -1, "a batch size is not negative"),
    ("01.3", lambda c, m: right["largest_batch"](c, m) + 0.5, "whole number"),
    ("01.4", lambda c, b, t: dropout(c, b, t, embedding=0), "mask after the embeddings"),
    ("01.4", lambda c, b, t: dropout(c, b, t, residual=1), "two masks outside attention"),
    ("01.4", lambda c, b, t: dropout(c, b, t, attention=1), "thinned-out attention weights"),
    ("01.4", lambda c, b, t: dropout(c, b, t, attention=0), "on the attention weights, too"),
    ("01.4", lambda c, b, t: dropout(c, b, c.context_length), "num_tokens, which may be less"),
    (
        "01.4",
        lambda c, b, t: (dropout(c, b, t, attention=1) // 4)
        + c.num_layers * scores(c, b, t),
        "1 byte is a GPU's",
    ),
    (
        "01.4",
        lambda c, b, t: dropout(c, b, t) + saved_activation_bytes(c, b, t),
        "only the forgotten part",
    ),
    ("01.5", bill(factor=2), "2 is forward alone"),
    ("01.5", bill(use=False), "the peak is never reached"),
    ("01.5", bill(lose=False), "lost time is missing"),
    ("01.5", bill(wrong_loss=True), "1 + share is too little"),
    ("01.5", bill(gpus=False), "every GPU is paid, not one"),
    ("01.5", lambda *a: bill()(*a)[0], "two numbers, days and dollars"),
    ("01.5", lambda *a: bill()(*a)[::-1], "Days come first"),
]


@pytest.mark.parametrize("key, answer, words", WRONG, ids=[f"{k} {w}" for k, _, w in WRONG])
def test_a_wrong_answer_is_rejected_by_name(key, answer, words):
    outcome = judge(key, answer)
    assert outcome.status == "not yet", outcome.message
    assert words in outcome.message


def test_an_answer_that_changes_the_default_dtype_spoils_nothing(solutions):
    def spoiler(config, num_blocks):
        torch.set_default_dtype(torch.float64)
        return 0

    assert judge("01.1", spoiler).status == "not yet"
    assert torch.get_default_dtype() == torch.float32
    assert judge("01.1", solutions["fine_tuning_bytes"]).status == "passed"


def test_every_exercise_has_at_least_three_wrong_answers():
    for key in ANSWERS:
        assert len({words for k, _, words in WRONG if k == key}) >= 3
