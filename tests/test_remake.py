"""What each kept tensor costs to make again, on chains worked out by hand and on a block."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.predict import block_activation_bytes
from utils.remake import GIVEN, KEPT_HEADERS, kept_tensors
from utils.saved import saved_bytes

CONFIG = GPTConfig(1, 4, 32, 16, 64, attention="explicit")
B, T, D, H = 2, 16, 32, 4


def kept_by(forward, *weights):
    return {tensor.made_by: tensor for tensor in kept_tensors(forward, weights)}


def test_two_products_and_an_activation_by_hand():
    x, wide = torch.ones(5, 3, requires_grad=True), torch.ones(3, 7, requires_grad=True)
    narrow = torch.ones(7, 2, requires_grad=True)
    kept = kept_by(lambda: F.gelu(x @ wide) @ narrow, wide, narrow)
    assert kept[GIVEN].flops == 0 and kept[GIVEN].shape == (5, 3)
    assert kept["mm"].flops == 2 * 5 * 3 * 7 and kept["mm"].num_bytes == 4 * 5 * 7
    assert kept["gelu"].flops == 0  # what it was made from is kept
    assert set(kept) == {GIVEN, "mm", "gelu"}


def test_what_lies_between_must_be_made_again_too():
    x, weight = torch.ones(4, 4, requires_grad=True), torch.ones(4, 4, requires_grad=True)
    # relu keeps its result only, so both products stand between it and x
    kept = kept_by(lambda: (x @ weight @ weight.detach()).relu(), weight)
    assert kept["relu"].flops == 2 * (2 * 4 * 4 * 4)


def test_an_operation_that_is_needed_twice_is_counted_once():
    x, weight = torch.ones(4, 4, requires_grad=True), torch.ones(4, 4)
    kept = kept_by(lambda: (lambda y: (y + y.neg()).exp())(x @ weight), weight)
    assert kept["exp"].flops == 2 * 4 * 4 * 4


def test_in_place_operations_add_to_their_tensors_makers():
    x, weight = torch.ones(4, 4, requires_grad=True), torch.ones(4, 4)
    kept = kept_by(lambda: (x @ weight).mul_(2).exp(), weight)
    assert kept["exp"].flops == 2 * 4 * 4 * 4


@pytest.fixture(scope="module")
def block_kept():
    block = build_gpt(CONFIG).blocks[0]
    x_BTD = torch.ones(B, T, D, requires_grad=True)
    weights = [*block.parameters(), *block.buffers()]
    return block, x_BTD, kept_tensors(lambda: block(x_BTD), weights)


def test_a_block_keeps_the_bytes_of_the_formula(block_kept):
    block, x_BTD, kept = block_kept
    assert sum(tensor.num_bytes for tensor in kept) == block_activation_bytes(CONFIG, B, T)
    assert sum(tensor.num_bytes for tensor in kept) == saved_bytes(block, lambda: block(x_BTD))


def test_softmax_is_the_cheap_giant_and_norms_and_gelu_are_free(block_kept):
    kept = {tensor.made_by: tensor for tensor in block_kept[2]}
    softmax = kept["softmax"]
    assert softmax.num_bytes == 4 * B * H * T * T
    assert softmax.flops == 2 * B * T * T * D  # one product of queries and keys
    assert kept["gelu"].flops == kept["native_layer_norm"].flops == 0
    assert kept["addmm"].flops == 2 * B * T * D * 4 * D  # the widening layer
    clones = [tensor.flops for tensor in block_kept[2] if tensor.made_by == "clone"]
    assert clones.count(2 * B * T * D * 3 * D) == 3  # queries, keys, values
    assert clones.count(2 * B * T * T * D) == 1  # the weighted sum of values


def test_fused_attention_keeps_no_scores():
    block = build_gpt(replace(CONFIG, attention="fused")).blocks[0]
    x_BTD = torch.ones(B, T, D, requires_grad=True)
    kept = kept_tensors(lambda: block(x_BTD), block.parameters())
    assert not any(tensor.shape[-2:] == (T, T) for tensor in kept)


def test_a_row():
    x, weight = torch.ones(5, 3, requires_grad=True), torch.ones(3, 7)
    (tensor,) = [t for t in kept_tensors(lambda: (x @ weight).exp(), [weight]) if t.flops]
    assert tensor.row == ("exp", "(5, 7)", 140, 210, "2")
    assert len(tensor.row) == len(KEPT_HEADERS)
