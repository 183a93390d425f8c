"""The model: its shapes, its two attentions, its presets, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from tests.helpers import batch_for
from utils.config import PRESETS, GPTConfig
from utils.model import build_gpt, next_token_loss

TINY = GPTConfig(2, 4, 32, 16, 64)


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
def test_both_attentions_compute_the_same(kv_heads):
    results = []
    for attention in ("explicit", "fused"):
        model = build_gpt(replace(TINY, attention=attention, num_kv_heads=kv_heads))
        loss = next_token_loss(model, *batch_for(TINY, 3))
        loss.backward()
        results.append((loss.detach(), [p.grad for p in model.parameters()]))
    (loss_a, grads_a), (loss_b, grads_b) = results
    torch.testing.assert_close(loss_a, loss_b)
    for a, b in zip(grads_a, grads_b, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_no_token_sees_the_future():
    model = build_gpt(TINY)
    tokens_BT, _ = batch_for(TINY, 1)
    changed_BT = tokens_BT.clone()
    changed_BT[0, -1] = (changed_BT[0, -1] + 1) % TINY.vocab_size
    torch.testing.assert_close(model(tokens_BT)[:, :-1], model(changed_BT)[:, :-1])
    assert not torch.equal(model(tokens_BT)[:, -1], model(changed_BT)[:, -1])


def test_a_seed_gives_the_same_weights_and_leaves_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = build_gpt(TINY), build_gpt(TINY), build_gpt(TINY, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.output.weight, other.output.weight)


@pytest.mark.parametrize(
    "preset, published, tolerance",
    [
        ("gpt2-124m", 124_439_808, 0.0),
        ("gpt2-1.5b", 1_557_611_200, 0.0),
        ("llama2-70b-shape", 68_976_648_192, 0.001),  # plus our learned positions
        ("llama2-7b-shape", 6_738_415_616, 0.003),
    ],
)
def test_presets_have_the_published_sizes(preset, published, tolerance):
    model = build_gpt(PRESETS[preset], device="meta")
    num_parameters = sum(p.numel() for p in model.parameters())
    assert abs(num_parameters / published - 1) <= tolerance


def test_dropout_is_a_field_and_silent_in_evaluation():
    model = build_gpt(replace(TINY, dropout=0.5, attention="explicit"))
    tokens_BT, _ = batch_for(TINY, 1)
    assert not torch.equal(model(tokens_BT), model(tokens_BT))
    model.eval()
    assert torch.equal(model(tokens_BT), model(tokens_BT))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_heads": 5}, "must be a multiple of num_heads"),
        ({"num_kv_heads": 3}, "must be a multiple of kv_heads"),
        ({"dropout": 1.0}, "dropout must lie"),
        ({"attention": "flash"}, "attention must be one of"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
    ],
)
def test_a_bad_config_is_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **change)


def test_too_long_a_sequence_is_refused_in_words():
    with pytest.raises(ValueError, match="do not fit context_length=16"):
        build_gpt(TINY)(torch.zeros(1, 17, dtype=torch.long))


def test_a_variant_keeps_no_width_of_its_original():
    wider = replace(PRESETS["laptop"], model_dim=256, num_heads=8)
    assert (wider.feed_forward_dim, wider.kv_heads) == (1024, 8)
