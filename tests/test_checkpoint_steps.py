"""Steps by plan: what is compared is the same step, and a difference would be seen."""

from dataclasses import replace

import pytest
import torch

from tests.helpers import batch_for
from utils import checkpoint_steps
from utils.checkpoint_steps import (
    CHECKPOINTS,
    PARITY_HEADERS,
    AdamStep,
    parity_rows,
    peak_and_gradients,
    step_by,
)
from utils.config import GPTConfig
from utils.costs import training_flops
from utils.model import build_gpt, next_token_loss
from utils.predict_checkpoint import predict_checkpointed_step, recomputed_flops
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks

CONFIG = GPTConfig(3, 2, 16, 12, 64, attention="explicit", dropout=0.1)
KEEP, EACH = (0, 1, 2), ((0,), (1,), (2,))
PLAIN = replace(CONFIG, dropout=0.0)


def test_ours_and_torchs_are_equal_in_pairs():
    model, batch = build_gpt(CONFIG), batch_for(CONFIG, 2)
    plain, *rows = parity_rows(model, batch, EACH)
    assert all(len(row) == len(PARITY_HEADERS) for row in (plain, *rows))
    assert [row[0] for row in rows] == list(CHECKPOINTS)
    assert [row[-1] for row in rows] == [True] * 4
    ours, theirs = rows[::2], rows[1::2]
    assert [row[1:] for row in ours] == [row[1:] for row in theirs]
    assert all(row[3] < plain[3] for row in rows)


def test_a_checkpoint_that_forgets_the_random_state_is_told_apart(monkeypatch):
    def forgetful(function, *args):
        torch.rand(1)  # as if the second run drew from another place
        return checkpoint_by_hooks(function, *args)

    monkeypatch.setattr(checkpoint_steps, "CHECKPOINTS", {"forgetful": forgetful})
    model, batch = build_gpt(CONFIG), batch_for(CONFIG, 2)
    assert [row[-1] for row in parity_rows(model, batch, EACH)] == ["", False]


def test_peak_and_gradients_start_from_zero_and_from_one_seed():
    model, batch = build_gpt(CONFIG), batch_for(CONFIG, 2)

    def plain():
        torch.manual_seed(0)
        next_token_loss(model, *batch).backward()

    first, again = (peak_and_gradients(plain, model) for _ in range(2))
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert first[1].numel() == sum(p.numel() for p in model.parameters())
    saving = peak_and_gradients(lambda: step_by(model, batch, EACH, checkpoint_by_hooks), model)
    assert saving[0] < first[0]
    assert torch.equal(saving[1], first[1])


@pytest.mark.parametrize("plan", [KEEP, EACH, (0, (1, 2))])
def test_adam_step_has_the_predicted_bytes_and_flops(plan):
    step = AdamStep(build_gpt(PLAIN), batch_for(PLAIN, 2))
    report = step.metered(plan)
    assert report.peak_bytes == predict_checkpointed_step(PLAIN, 2, plan).peak_bytes
    assert [name for name, _ in report.marks] == ["backward", "optimizer"]
    for checkpoint, stops in ((checkpoint_by_hooks, True), (checkpoint_by_function, False)):
        again = recomputed_flops(PLAIN, 2, 12, plan, early_stop=stops)
        assert step.flops(plan, checkpoint) == training_flops(PLAIN, 2, 12) + again


def test_adam_step_trains_and_keeps_gradients_of_zero():
    model, batch = build_gpt(PLAIN), batch_for(PLAIN, 2)
    step, before = AdamStep(model, batch), next_token_loss(model, *batch).item()
    for _ in range(5):
        step(EACH)
    assert next_token_loss(model, *batch).item() < before
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
