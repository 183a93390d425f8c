"""Selective checkpointing: bytes, FLOPs and gradients as torch's, whatever the policy keeps."""

from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from tests.checkpoint_cases import CONFIG, EACH_BLOCK, PAIRS, assert_same, in_plan, step
from tests.helpers import batch_for
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.techniques.selective import (
    FUSED_ATTENTION,
    checkpoint_keeping,
    keep_products,
)

aten = torch.ops.aten
POLICIES = {
    "products": keep_products,
    "linear layers": lambda operation: operation in (aten.mm.default, aten.addmm.default),
    "fused attention": lambda operation: operation in FUSED_ATTENTION,
    "masked": lambda operation: operation is aten.mul.Tensor,  # dropout's own product is one
    "elementwise": lambda operation: operation in (aten.gelu.default, aten._softmax.default),
    "nothing": lambda operation: False,
}
THREE = list(POLICIES)[:3]


def torchs(policy):
    """Torch's own selective checkpoint for the same policy."""
    contexts = partial(create_selective_checkpoint_contexts, lambda ctx, op, *_, **__: policy(op))
    return partial(torch_checkpoint, use_reentrant=False, context_fn=contexts)


@cache
def costs(config, policy, is_ours):
    """(peak bytes, bytes between forward and backward, FLOPs) of a step."""
    model, batch = build_gpt(config), batch_for(config, 2)
    next_token_loss(model, *batch).backward()
    plan = None if policy is None else EACH_BLOCK
    checkpoint = (checkpoint_keeping if is_ours else torchs)(POLICIES.get(policy))
    with in_plan(model, plan, checkpoint), MemoryMeter(model) as meter:
        loss = next_token_loss(model, *batch)
        meter.mark("between")
        loss.backward()
    with in_plan(model, plan, checkpoint), FlopCounterMode(display=False) as counter:
        next_token_loss(model, *batch).backward()
    report = meter.report()
    between = sum(report.at_mark("between").values())
    return report.peak_bytes, between, counter.get_total_flops()


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("policy", THREE)
def test_bytes_and_flops_are_torchs(policy, attention):
    config = replace(CONFIG, attention=attention, dropout=0.0)
    ours, theirs = (costs(config, policy, is_ours) for is_ours in (True, False))
    assert ours[0] <= theirs[0] and ours[1:] == theirs[1:]
    nothing, plain = costs(config, "nothing", True), costs(config, None, True)
    assert nothing[1] <= ours[1] < plain[1] and plain[2] <= ours[2] <= nothing[2]
    assert (ours[1] == nothing[1]) == (policy == "fused attention" and attention == "explicit")
    if policy != "fused attention":  # torch counts no FLOPs for that on a CPU
        assert ours[2] < nothing[2]


def test_the_three_policies_by_hand():
    """What each keeps, block for block, beside the input: in values of fp32."""
    config = replace(CONFIG, attention="explicit", dropout=0.0)
    batch, tokens, width, heads = 2, 32, 32, 2
    nothing = costs(config, "nothing", True)
    linear = batch * tokens * (3 * width + width + 4 * width + width)
    scores = batch * heads * tokens * tokens
    values = batch * tokens * width
    kept = {policy: costs(config, policy, True) for policy in ("linear layers", "products")}
    assert kept["linear layers"][1] - nothing[1] == 4 * 4 * linear
    assert kept["products"][1] - nothing[1] == 4 * 4 * (linear + scores + values)
    assert kept["products"][2] == costs(config, None, True)[2]  # no product is computed again


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("plan", [EACH_BLOCK, PAIRS], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_bit_equal_with_dropout(policy, plan, attention):
    config = replace(CONFIG, attention=attention)
    plain = step(config)
    assert_same(step(config, plan, checkpoint_keeping(POLICIES[policy])), plain)
    if policy in THREE:
        assert_same(step(config, plan, torchs(POLICIES[policy])), plain)
