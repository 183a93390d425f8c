"""Checkpointed steps of a GPT: every gradient bit-equal to the plain step and to torch's."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.checkpoint_cases import (
    CONFIG,
    EACH_BLOCK,
    OURS,
    PAIRS,
    TORCHS,
    assert_same,
    in_plan,
    nested,
    step,
)
from tests.helpers import batch_for
from utils.model import build_gpt, next_token_loss
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CPU_RULES
from utils.techniques.segments import run_plan

ALL = OURS | TORCHS
BF16 = partial(torch.autocast, "cpu", torch.bfloat16)
BY_HAND = partial(ManualAutocast, CPU_RULES, torch.bfloat16)


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("plan", [EACH_BLOCK, PAIRS, (0, (1, 2), 3)], ids=str)
def test_every_gradient_is_bit_equal_to_the_plain_step_and_to_torchs(attention, dropout, plan):
    config = replace(CONFIG, attention=attention, dropout=dropout)
    plain = step(config)
    assert all(gradient is not None for gradient in plain)
    for checkpoint in ALL.values():
        assert_same(step(config, plan, checkpoint), plain)


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
@pytest.mark.parametrize("context", [BF16, BY_HAND], ids=["torch.autocast", "ManualAutocast"])
def test_under_autocast_wherever_backward_runs(attention, inside, context):
    config = replace(CONFIG, attention=attention)
    plain = step(config, context=context, inside=inside)
    assert plain[0] != step(config)[0]
    for name, checkpoint in ALL.items():
        if context is BF16 or name in OURS:  # torch does not replay our autocast
            assert_same(step(config, EACH_BLOCK, checkpoint, context, inside=inside), plain)


def test_torch_autocast_and_ours_give_the_same_checkpointed_step():
    for checkpoint in OURS.values():
        theirs = step(CONFIG, EACH_BLOCK, checkpoint, BF16)
        assert_same(step(CONFIG, EACH_BLOCK, checkpoint, BY_HAND), theirs)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("inner", ALL)
@pytest.mark.parametrize("outer", ALL)
def test_nested_in_every_mixture(outer, inner):
    """Also with torch's own around and inside of ours."""
    plain = step(CONFIG)
    assert_same(step(CONFIG, PAIRS, nested(ALL[outer], ALL[inner])), plain)


@pytest.mark.parametrize("name", OURS)
def test_deeply_nested_plans(name):
    plan = (((((0,), 1), 2), 3),)
    for context in (BF16, BY_HAND):
        plain = step(CONFIG, context=context)
        assert_same(step(CONFIG, plan, OURS[name], context), plain)


def freeze_block(model):
    model.blocks[1].requires_grad_(False)


def freeze_embeddings(model):
    model.token_embedding.requires_grad_(False)
    model.position_embedding.requires_grad_(False)


def freeze_all_but_the_biases_of_the_second_block(model):
    model.requires_grad_(False)
    model.blocks[1].feed_forward.narrow.bias.requires_grad_(True)


@pytest.mark.parametrize("plan", [EACH_BLOCK, PAIRS, ((0, 1, 2, 3),)], ids=str)
@pytest.mark.parametrize(
    "prepare", [freeze_block, freeze_embeddings, freeze_all_but_the_biases_of_the_second_block]
)
@pytest.mark.parametrize("name", OURS)
def test_frozen_layers(name, prepare, plan):
    assert_same(step(CONFIG, plan, OURS[name], prepare=prepare), step(CONFIG, prepare=prepare))


def test_a_frozen_embedding_costs_torchs_first_variant_gradients_and_ours_none():
    plain = step(CONFIG, prepare=freeze_embeddings)
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
        theirs = step(CONFIG, EACH_BLOCK, TORCHS["torch, reentrant"], prepare=freeze_embeddings)
    count = [sum(gradient is not None for gradient in result) for result in (plain, theirs)]
    assert count[0] - count[1] == 4 * 12  # blocks have two norms and four layers, with biases


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_kept_and_the_logits_are_equal(name, guard):
    model = build_gpt(CONFIG)
    tokens_BT, _ = batch_for(CONFIG, 3)
    logits = []
    for plan in (None, EACH_BLOCK):
        torch.manual_seed(7)
        with in_plan(model, plan, OURS[name]), guard():
            logits.append(model(tokens_BT))
    assert torch.equal(*logits)
    assert logits[1].grad_fn is None and not logits[1].requires_grad


@pytest.mark.parametrize("name", OURS)
def test_several_steps_of_adamw_give_the_same_losses_and_weights(name):
    config = replace(CONFIG, tied_embeddings=True, num_kv_heads=1)
    results = []
    for plan in (None, ((0, (1,)), (2, 3))):
        model = build_gpt(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(7)
        losses = []
        with in_plan(model, plan, OURS[name]):
            for _ in range(4):
                loss = next_token_loss(model, *batch_for(config, 3))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.detach())
        results.append([*losses, *model.parameters()])
    assert_same(*results)
    assert results[0][3] < results[0][0]


@pytest.mark.parametrize("name", OURS)
def test_gradients_add_up_over_micro_batches(name):
    totals = []
    for plan in (None, EACH_BLOCK):
        model = build_gpt(CONFIG)
        torch.manual_seed(7)
        with in_plan(model, plan, OURS[name]):
            losses = [next_token_loss(model, *batch_for(CONFIG, size)) for size in (1, 2)]
            for loss in reversed(losses):
                loss.backward()
        totals.append([parameter.grad for parameter in model.parameters()])
    assert_same(*totals)


def test_a_gradient_of_a_gradient_and_gradients_for_chosen_tensors():
    """Only the hooks: torch.autograd.grad asks for some gradients, and here for their graph."""
    results = []
    for plan in ((0, 1), ((0, 1),), ((0,), (1,)), (((0,), 1),)):
        layers = build_gpt(replace(CONFIG, attention="explicit")).double().blocks[:2].eval()
        x_BTD = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(1)).double()
        x_BTD.requires_grad_()
        y_BTD = run_plan(plan, layers, x_BTD, OURS["hooks"])
        (slope,) = torch.autograd.grad(y_BTD.square().sum(), x_BTD, create_graph=True)
        weights = list(layers.parameters())
        results.append([slope, *torch.autograd.grad(slope.square().sum(), weights)])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", OURS)
def test_on_a_gpu_its_generator_and_its_autocast_are_replayed(name):
    config = replace(CONFIG, attention="explicit")  # its backward adds in the same order each time
    results = []
    for plan in (None, EACH_BLOCK):
        model, batch = build_gpt(config).cuda(), batch_for(config, 3, device="cuda")
        torch.manual_seed(7)
        with in_plan(model, plan, OURS[name]), torch.autocast("cuda", torch.bfloat16):
            loss = next_token_loss(model, *batch)
        loss.backward()
        drawn_next = torch.rand(3, device="cuda")
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append([loss.detach(), drawn_next, torch.rand(3), *gradients])
    assert_same(*results)
