"""Lab 02's checks: the solution passes, the stub is not attempted, wrong answers are named."""

import pytest
import torch

from tests.lab_source import ROOT, solution_functions, stub_keys
from utils.build.text import read_cells
from utils.checks.engine import EXERCISES, judge
from utils.checks.truth_02 import CastWitness, GatedFeedForward, gated_layer_bytes
from utils.predict import saved_activation_bytes
from utils.predict_autocast import autocast_saved_bytes, weight_copy_bytes
from utils.saved import saved_bytes

LAB = "lab_02_manual_autocast"
ANSWERS = {
    "02.1": "choose_list",
    "02.2": "make_cast",
    "02.3": "gated_layer_bytes",
    "02.4": "least_batch",
    "02.5": "always_in_fp32",
}
right = solution_functions(LAB)


def test_every_exercise_of_the_lab_has_a_judge_and_hints():
    judge("02.1", None)  # loads the labs
    ours = {key for key, each in EXERCISES.items() if each.lab == LAB}
    assert stub_keys(LAB) == sorted(ours) == list(ANSWERS)
    assert all(len(EXERCISES[key].hints) >= 2 for key in ours)


@pytest.mark.parametrize("key", ANSWERS)
def test_the_solution_passes(key):
    outcome = judge(key, right[ANSWERS[key]])
    assert outcome.status == "passed", outcome.message


@pytest.mark.parametrize("key", ANSWERS)
def test_the_stub_is_not_attempted(key):
    def stub(*_):
        raise NotImplementedError("your turn")

    assert judge(key, stub).status == "not attempted"


def test_the_witness_counts_casts_and_living_copies():
    weight = torch.ones(4, 4)
    with CastWitness() as witness:
        kept, _ = weight.bfloat16(), weight.to(torch.bfloat16)
        torch.empty(2, dtype=torch.bfloat16).copy_(torch.ones(2))
        kept.clone()
    assert witness.num_casts_of([weight]) == 2 and len(witness.sources) == 3
    assert witness.live_bytes() == 2 * 2 * 16  # `_` lives as well
    del kept, _
    assert witness.live_bytes() == 0


def test_torchs_autocast_keeps_the_same_bytes_of_a_gated_layer():
    layer = GatedFeedForward(16, 40)

    def forward():
        x = torch.zeros(1, 6, 16, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            return sum(layer(x + 1) for _ in range(3))

    assert saved_bytes(layer, forward) == gated_layer_bytes(6, 16, 40, 3)


def mutant(name, *changes):
    """The solution's function with some of its code changed: a typical mistake."""
    cells = read_cells(ROOT / "sources" / f"{LAB}.py", ROOT)
    (text,) = [cell.text for cell in cells if cell.text.startswith(f"def {name}(")]
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text, f"{name} no longer contains {old!r}"
        text = text.replace(old, new)
    namespace = dict(right)
    exec(compile(text, name, "exec"), namespace)
    return namespace[name]


def gated(tokens, width, hidden, micro, inputs=2, wide=4, copies=3, shared=True, bytes_each=2):
    kept = micro * tokens * (inputs * width + wide * hidden)
    return bytes_each * (kept + copies * (1 if shared else micro) * width * hidden)


def no_copies(config, num_tokens, share):
    """Counts activations alone, so every batch seems to pay."""
    for batch_size in range(1, 100):
        low = autocast_saved_bytes(config, batch_size, num_tokens) - weight_copy_bytes(config)
        if low <= (1 - share) * saved_activation_bytes(config, batch_size, num_tokens):
            return batch_size
    return 0


def changed(key, words, *changes):
    return key, mutant(ANSWERS[key], *changes), words


HOOK = "optimizer.register_step_post_hook(lambda *_: copies.clear())"
LOW_ONLY = "value.dtype in (torch.bfloat16, torch.float16)"
REGION = """with ManualAutocast(enabled=False), torch.autocast("cpu", enabled=False):"""
LEFT_OPEN = """\
        ours, theirs = ManualAutocast(enabled=False), torch.autocast("cpu", enabled=False)
        ours.__enter__(), theirs.__enter__()
        named = {name: raised(value) for name, value in kwargs.items()}
        result = function(*map(raised, args), **named)
        theirs.__exit__(None, None, None), ours.__exit__(None, None, None)
        return result

        if True:"""
WRONG = [
    changed("02.1", "257 becomes 256 in bf16", "to(low_dtype) if t.is_floating_point() else t",
            "to(low_dtype)"),
    changed("02.1", "`nan > limit` is False", "not error <= limit", "error > limit"),
    changed("02.1", "not to blame for how its inputs", "operation(*high)", "operation(*inputs)"),
    changed("02.1", "some rounding is allowed", "8 * torch", "0 * torch"),
    changed("02.1", "all digits cancel", "not error <= limit", "not error < float('inf')"),
    changed("02.1", "against the largest result", " * exact.abs().max()", ""),
    changed("02.1", "being safe comes before being fast", "not error <= limit:", "False:"),
    changed("02.1", "ask first whether it is a product", "flops() > 0", "flops() < 0"),
    changed("02.1", "one input in fp32 and the others in 16", "inputs[0], *low[1:]", "*low"),
    ("02.1", lambda *_: "none", "without an experiment"),
    ("02.1", lambda *_: "low", "Name one of the lists"),
    changed("02.2", "a cache that survives an optimizer step", HOOK, ""),
    changed("02.2", "`_version` does not count", HOOK, "", "id(tensor),",
            "id(tensor), tensor._version,"),
    changed("02.2", "of dtype int64 was cast", "not tensor.is_floating_point() or ", "",
            "if not is_weight", "if not tensor.is_floating_point() or not is_weight"),
    changed("02.2", "of dtype float64 was cast", "(torch.float64, low_dtype)", "(low_dtype,)"),
    changed("02.2", "Two weights of one shape", "key = id(tensor)", "key = tensor.shape"),
    changed("02.2", "does not lead to a gradient", ", tensor.to(", ", tensor.detach().to("),
    changed("02.2", "was kept, where it only takes memory", "if not is_weight", "if False"),
    changed("02.2", "under torch.no_grad() has no graph", ", torch.is_grad_enabled()", ""),
    changed("02.2", "must outlive the micro-batch", "if key not in copies", "if True"),
    changed("02.2", "when the optimizer steps, not at their next use", "copies.clear()",
            "copies.update(late=1)", "-> Tensor:", "-> Tensor:\n        if 'late' in copies:"
            "\n            copies.clear()"),
    ("02.2", lambda *_: lambda tensor: None, "must return a tensor"),
    ("02.3", lambda *a: gated(*a, inputs=1), "the input is cast twice"),
    ("02.3", lambda *a: gated(*a, copies=0), "copies of the weights are kept as well"),
    ("02.3", lambda *a: gated(*a, shared=False), "share the copies of the weights"),
    ("02.3", lambda t, d, h, n: gated(t, d, h, 1), "its own activations until the one backward"),
    ("02.3", lambda *a: gated(*a, wide=2), "needs both for its backward"),
    ("02.3", lambda *a: gated(*a, wide=3), "silu needs its input"),
    ("02.3", lambda *a: gated(*a, bytes_each=4), "fp32's 4 bytes"),
    ("02.3", lambda *a: gated(*a, bytes_each=1), "each takes 2 bytes"),
    ("02.4", no_copies, "copies of the weights are missing"),
    ("02.4", lambda *a: right["least_batch"](*a) + 1, "one too many"),
    ("02.4", lambda *a: right["least_batch"](*a) - 1, "one too few"),
    ("02.4", lambda c, n, s: n * right["least_batch"](c, n, s), "a number of tokens"),
    ("02.4", lambda *a: right["least_batch"](*a) or 10_000, "say 0 when no batch"),
    ("02.4", lambda *a: 0, "some batch does"),
    ("02.4", lambda *a: right["least_batch"](*a) - 0.5, "whole number"),
    changed("02.5", "switch the surrounding autocast off", REGION, "if True:"),
    changed("02.5", "switch the surrounding autocast off", REGION,
            "with ManualAutocast(enabled=False):"),
    changed("02.5", "a 16-bit input came in uncast", "if is_low", "if False"),
    changed("02.5", "cast kwargs too", "raised(value) for", "value for"),
    changed("02.5", "of dtype int64 was cast", f" and {LOW_ONLY}", ""),
    changed("02.5", "of dtype float64 was cast", LOW_ONLY, "value.is_floating_point()"),
    changed("02.5", "a copy costs memory", LOW_ONLY, "value.dtype.itemsize < 8",
            "value.float()", "value.float().clone()"),
    changed("02.5", "a detached input", "value.float()", "value.detach().float()"),
    changed("02.5", "the result is not fp32", "**named)", "**named).bfloat16()"),
    changed("02.5", "must run once", "return function", "function(*map(raised, args), **named)\n"
            "            return function"),
    changed("02.5", "After an exception autocast stays off", "        " + REGION, LEFT_OPEN),
]  # fmt: skip


@pytest.mark.parametrize("key, answer, words", WRONG, ids=[f"{k} {w}" for k, _, w in WRONG])
def test_a_wrong_answer_is_rejected_by_name(key, answer, words):
    outcome = judge(key, answer)
    assert outcome.status == "not yet", outcome.message
    assert words in outcome.message


def test_every_exercise_has_at_least_three_wrong_answers():
    for key in ANSWERS:
        assert len({words for k, _, words in WRONG if k == key}) >= 3
