"""A model as a chain: the same model, and each layer's bytes and FLOPs counted by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.checkpoint_cases import CONFIG
from tests.helpers import batch_for
from utils.model import build_gpt, next_token_loss
from utils.techniques.chain import LayerCost, gpt_chain, halves, measure_layer, measure_layers

FLOAT = 4


def in_chain(layers, x):
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("cut_blocks", [False, True])
def test_the_chain_is_the_model(cut_blocks, attention):
    results = []
    for as_chain in (False, True):
        model = build_gpt(replace(CONFIG, attention=attention))
        tokens_BT, targets_BT = batch_for(CONFIG, 2)
        torch.manual_seed(5)
        if as_chain:
            embed, *blocks, loss = gpt_chain(model, targets_BT)
            layers = [half for block in blocks for half in halves(block)] if cut_blocks else blocks
            value = in_chain([embed, *layers, loss], tokens_BT)
        else:
            value = next_token_loss(model, tokens_BT, targets_BT)
        value.backward()
        results.append([value, *(parameter.grad for parameter in model.parameters())])
    assert all(map(torch.equal, *results))


def test_a_linear_layer_by_hand():
    layer, x = nn.Linear(4, 8), torch.ones(16, 4)
    output, gradient_of_input = 16 * 8 * FLOAT, 16 * 4 * FLOAT
    new_gradients = (8 * 4 + 8) * FLOAT  # before they are added to those that are there
    assert measure_layer(layer, x) == LayerCost(
        flops=2 * 16 * 4 * 8,
        output_bytes=output,
        saved_bytes=0,  # only its input, which the layer below pays for
        plain_peak_bytes=output,
        graph_peak_bytes=output,
        backward_peak_bytes=output + gradient_of_input + new_gradients,
    )


def test_layers_that_save_their_input_their_output_or_more():
    x = torch.ones(100)
    size = x.nbytes
    expected = {
        torch.sin: (size, 0, size, size),  # saves its input
        torch.exp: (size, 0, size, size),  # saves its output: counted once, as output
        (lambda x: x.sin().exp().cos()): (size, size, 2 * size, 2 * size),  # the second of three
        (lambda x: x.sum()): (FLOAT, 0, FLOAT, FLOAT),
        (lambda x: x.view(10, 10)): (size, -size, 0, 0),  # nothing new: output and saved cancel out
    }
    for layer, sizes in expected.items():
        cost = measure_layer(layer, x)
        assert sizes == (
            cost.output_bytes,
            cost.saved_bytes,
            cost.plain_peak_bytes,
            cost.graph_peak_bytes,
        )


def test_each_layer_is_measured_on_what_reaches_it_and_flops_add_up():
    model = build_gpt(replace(CONFIG, dropout=0.0))
    tokens_BT, targets_BT = batch_for(CONFIG, 2)
    costs = measure_layers(gpt_chain(model, targets_BT), tokens_BT)
    width_bytes = 2 * 32 * 32 * FLOAT
    assert [cost.output_bytes for cost in costs] == [width_bytes] * 5 + [FLOAT]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        next_token_loss(model, tokens_BT, targets_BT)
    assert sum(cost.flops for cost in costs) == counter.get_total_flops()
    assert costs[0].flops == 0 and costs[1] == costs[2] == costs[3] == costs[4]
    assert costs[5].flops == 2 * 2 * 32 * 32 * 64


def test_halves_cost_what_the_block_costs_but_not_the_same():
    model = build_gpt(replace(CONFIG, attention="explicit", dropout=0.0))
    x_BTD = torch.ones(2, 32, 32)
    block = measure_layer(model.blocks[0], x_BTD)
    attend, feed_forward = measure_layers(halves(model.blocks[0]), x_BTD)
    assert attend.flops + feed_forward.flops == block.flops
    kept = attend.saved_bytes + attend.output_bytes + feed_forward.saved_bytes
    assert kept == block.saved_bytes
    assert attend.saved_bytes != feed_forward.saved_bytes


def test_measuring_changes_neither_gradients_nor_random_numbers_nor_the_input():
    model = build_gpt(CONFIG)
    tokens_BT, targets_BT = batch_for(CONFIG, 2)
    next_token_loss(model, tokens_BT, targets_BT).backward()
    model.blocks[1].zero_grad()
    before = [(p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    random = torch.get_rng_state()
    first = measure_layers(gpt_chain(model, targets_BT), tokens_BT)
    assert torch.equal(torch.get_rng_state(), random)
    for parameter, (gradient, values) in zip(model.parameters(), before, strict=True):
        assert parameter.grad is gradient
        assert gradient is None or torch.equal(gradient, values)
    x = torch.ones(3).requires_grad_()
    measure_layer(torch.sin, x)
    assert x.grad is None
    assert measure_layers(gpt_chain(model, targets_BT), tokens_BT) == first  # to the byte


def test_an_error_in_a_layer_leaves_the_gradients_there():
    layer = nn.Linear(3, 3)
    layer.weight.grad = kept = torch.ones(3, 3)
    calls = []

    def breaks(x):
        calls.append(1)
        if len(calls) == 4:
            raise ZeroDivisionError
        return layer(x)

    with pytest.raises(ZeroDivisionError):
        measure_layer(breaks, torch.ones(2, 3))
    assert layer.weight.grad is kept and layer.bias.grad is None


def test_a_frozen_embedding_has_no_backward():
    model = build_gpt(replace(CONFIG, dropout=0.0))
    model.token_embedding.requires_grad_(False)
    model.position_embedding.requires_grad_(False)
    tokens_BT, targets_BT = batch_for(CONFIG, 2)
    cost = measure_layers(gpt_chain(model, targets_BT), tokens_BT)[0]
    assert (cost.saved_bytes, cost.backward_peak_bytes) == (0, cost.output_bytes)
