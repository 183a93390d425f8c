"""O0-O3: APEX's exact properties, what each one holds, and how each one fares."""

import math

import pytest
import torch
from torch import nn

from utils.config import GPTConfig
from utils.corpus import load_corpus
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.techniques.autocast_rules import APEX_RULES
from utils.techniques.opt_levels import LEVELS, MixedPrecision, OptLevel, initialize

CONFIG = GPTConfig(1, 2, 16, 16, 256, attention="explicit")
SPLIT = 2.0**12  # a loss counts as one of 4096 micro-batches: its gradients are that much smaller


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(max_bytes=200_000)


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=3e-3)


def losses_of(corpus, level, loss_scale=None, num_steps=60, divide_by=1.0):
    precision = initialize(build_gpt(CONFIG), adam, level, loss_scale)
    losses = []
    for number in range(num_steps):
        batch = corpus.batch(number, 8, 16)
        loss = precision.step(lambda model, b=batch: next_token_loss(model, *b) / divide_by)
        losses.append(divide_by * loss)
    return losses, precision


@pytest.mark.parametrize(
    "name, cast, patch, batchnorm, masters, scale",
    [
        ("O0", torch.float32, False, None, False, 1.0),
        ("O1", None, True, None, None, "dynamic"),
        ("O2", torch.float16, False, True, True, "dynamic"),
        ("O3", torch.float16, False, False, False, 1.0),
    ],
)
def test_the_levels_have_apexs_properties(name, cast, patch, batchnorm, masters, scale):
    """apex/amp/frontend.py before commit cb65b8ed (2025-05-08)."""
    expected = (name, cast, patch, batchnorm, masters, scale)
    level = LEVELS[name]
    assert expected == (
        level.name,
        level.cast_model_type,
        level.patch_torch_functions,
        level.keep_batchnorm_fp32,
        level.master_weights,
        level.loss_scale,
    )


@pytest.mark.parametrize(
    "level, weight, updated",
    [
        ("O0", torch.float32, torch.float32),
        ("O1", torch.float32, torch.float32),
        ("O2", torch.float16, torch.float32),
        ("O3", torch.float16, torch.float16),
    ],
)
def test_dtypes_of_the_model_and_of_what_the_optimizer_updates(level, weight, updated):
    precision = initialize(build_gpt(CONFIG), adam, level)
    assert {p.dtype for p in precision.model.parameters()} == {weight}
    groups = precision.optimizer.param_groups
    assert {p.dtype for group in groups for p in group["params"]} == {updated}


@pytest.mark.parametrize("level, per_parameter", [("O0", 12), ("O1", 12), ("O2", 14), ("O3", 6)])
def test_bytes_held_between_steps(corpus, level, per_parameter):
    """Weights and Adam: 4 + 8, 4 + 8, 2 + 4 + 8, 2 + 4; gradients are gone after a step."""
    precision = initialize(build_gpt(CONFIG), adam, level)
    batch = corpus.batch(0, 2, 16)
    for _ in range(3):  # the first step of a dynamic scale may be skipped
        precision.step(lambda model: next_token_loss(model, *batch))
    with MemoryMeter(precision.model, precision.optimizer) as meter:
        if precision.masters:
            meter.label("parameters", *precision.masters.parameters())
        precision.step(lambda model: next_token_loss(model, *batch))
        meter.mark("end")
    held = meter.report().at_mark("end")
    num_parameters = sum(p.numel() for p in precision.model.parameters())
    kept = held["parameters"] + held["optimizer state"] - 16**2  # the causal mask
    assert kept / num_parameters == pytest.approx(per_parameter, rel=0.02)


def test_o1_computes_products_in_fp16_and_keeps_the_loss_in_fp32():
    precision = initialize(build_gpt(CONFIG), adam, "O1")
    seen = []

    def loss_function(model):
        logits = model(torch.zeros(1, 8, dtype=torch.long))
        seen.append(logits.dtype)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), torch.zeros(8, dtype=torch.long))
        seen.append(loss.dtype)
        return loss

    precision.step(loss_function)
    assert seen == [torch.float16, torch.float32]
    assert {"softmax", "layer_norm", "gelu"} <= APEX_RULES.fp32


def test_o1_and_o2_track_fp32(corpus):
    reference = losses_of(corpus, "O0")[0][-1]
    for level in ("O1", "O2"):
        assert losses_of(corpus, level)[0][-1] == pytest.approx(reference, abs=0.05)


def test_small_gradients_stall_without_a_scale_and_learn_with_one(corpus):
    reference = losses_of(corpus, "O0", divide_by=SPLIT)[0][-1]
    stalled = losses_of(corpus, "O2", loss_scale=1.0, divide_by=SPLIT)[0][-1]
    scaled = losses_of(corpus, "O2", divide_by=SPLIT)[0][-1]
    assert scaled == pytest.approx(reference, abs=0.05)
    assert stalled > reference + 0.15


def test_pure_fp16_with_adam_breaks_at_once(corpus):
    """Adam's epsilon, 1e-8, is 0 in fp16: where the second moment underflows, it divides by 0."""
    losses, _ = losses_of(corpus, "O3", num_steps=5)
    assert math.isfinite(losses[0]) and not math.isfinite(losses[-1])


def test_an_overflow_skips_the_step_and_lowers_the_scale(corpus):
    precision = initialize(build_gpt(CONFIG), adam, "O2")
    before = [p.clone() for p in precision.model.parameters()]
    batch = corpus.batch(0, 2, 16)
    precision.step(lambda model: next_token_loss(model, *batch) * 1e9)
    assert precision.scaler.num_skipped_steps == 1
    assert precision.scaler.loss_scale == 2.0**15
    assert all(torch.equal(a, b) for a, b in zip(before, precision.model.parameters(), strict=True))


def test_batchnorm_stays_in_fp32_where_a_level_says_so():
    for level, expected in (("O2", torch.float32), ("O3", torch.float16)):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        assert initialize(model, adam, level).model[1].weight.dtype == expected


def test_an_unknown_level_is_refused_in_words():
    with pytest.raises(ValueError, match="the levels are O0, O1, O2, O3"):
        initialize(build_gpt(CONFIG), adam, "O4")


def test_a_level_of_ones_own():
    own = OptLevel("bf16", torch.bfloat16, False, False, True, 1.0, "bf16 with masters, unscaled")
    precision = MixedPrecision(build_gpt(CONFIG), adam, own)
    assert {p.dtype for p in precision.model.parameters()} == {torch.bfloat16}
