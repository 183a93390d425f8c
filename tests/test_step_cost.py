"""What one pass costs: bytes against the formulas of lesson 01, FLOPs against the count."""

from dataclasses import replace

import pytest
import torch

from utils.config import GPTConfig
from utils.costs import count_parameters, training_flops
from utils.model import build_gpt, next_token_loss
from utils.predict import predict_step, saved_activation_bytes
from utils.step_cost import (
    COST_HEADERS,
    StepCost,
    adam_step_peak_bytes,
    gradients_of,
    plan_cost,
    step_cost,
)

CONFIG = GPTConfig(3, 4, 32, 16, 64, attention="explicit")
BATCH = (torch.zeros(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long))
PLAIN, EACH = (0, 1, 2), ((0,), (1,), (2,))


@pytest.fixture(scope="module")
def model():
    return build_gpt(CONFIG)


def test_a_plain_pass_keeps_what_the_formula_says_and_counts_its_flops(model):
    cost = plan_cost(model, PLAIN, *BATCH)
    batch_bytes = sum(tensor.nbytes for tensor in BATCH)  # there before, so not counted here
    loss_bytes = 4
    assert cost.kept_bytes == saved_activation_bytes(CONFIG, 2, 16) - batch_bytes + loss_bytes
    assert cost.flops == training_flops(CONFIG, 2, 16)
    assert cost.peak_bytes > cost.kept_bytes


def test_the_cost_is_the_same_every_time_whatever_was_in_the_gradients(model):
    model.zero_grad()
    first = plan_cost(model, EACH, *BATCH)
    assert first == plan_cost(model, EACH, *BATCH)


def test_checkpointing_keeps_less_and_computes_more(model):
    plain, each = plan_cost(model, PLAIN, *BATCH), plan_cost(model, EACH, *BATCH)
    assert each.kept_bytes < plain.kept_bytes / 3
    assert each.peak_bytes < plain.peak_bytes
    assert plain.flops < each.flops < 4 / 3 * plain.flops


def test_plan_cost_is_the_cost_of_the_plain_model_for_the_plain_plan(model):
    cost = step_cost(lambda: next_token_loss(model, *BATCH), model, *BATCH)
    assert cost == plan_cost(model, PLAIN, *BATCH)


def test_a_row_by_hand():
    base, cost = StepCost(1000, 2000, 300), StepCost(250, 1500, 330)
    assert cost.row("x", base) == ("x", 250, "75.0%", 1500, "25.0%", "10.0%")
    assert len(cost.row("x", base)) == len(COST_HEADERS)
    assert cost.kept_saved(base) == 0.75


def test_gradients_are_those_of_one_pass(model):
    next_token_loss(model, *BATCH).backward()
    flat = gradients_of(lambda: next_token_loss(model, *BATCH), model)
    assert flat.numel() == count_parameters(CONFIG).total
    assert torch.equal(flat, gradients_of(lambda: next_token_loss(model, *BATCH), model))


def test_the_peak_with_adam_is_the_predicted_one():
    config = replace(CONFIG, vocab_size=256)
    for batch_size in (1, 16):
        predicted = predict_step(config, batch_size).peak_bytes
        found = adam_step_peak_bytes(config, batch_size, 16, PLAIN)
        assert found == pytest.approx(predicted, rel=0.01)


def test_with_few_tokens_checkpointing_saves_nothing_of_a_step_with_adam():
    config = GPTConfig(3, 4, 64, 16, 64)
    few, many = ([adam_step_peak_bytes(config, size, 16, plan) for plan in (PLAIN, EACH)]
                 for size in (1, 64))  # fmt: skip
    assert few[0] == few[1]
    assert many[1] < 0.7 * many[0]
