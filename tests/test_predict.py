"""Predictions against the meter: activations to the byte, peaks within 2 %, FLOPs exactly."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers import batch_for, training_step
from utils.config import PRESETS, GPTConfig
from utils.costs import (
    count_parameters,
    flops_by_part,
    forward_flops,
    gpu_hours,
    hfu,
    mfu,
    rule_of_thumb_flops,
    tensor_sizes,
    training_flops,
)
from utils.memory import measure_memory
from utils.model import build_gpt, next_token_loss
from utils.predict import predict_step, saved_activation_bytes
from utils.saved import saved_bytes, saved_for_backward

EXPLICIT = {"attention": "explicit"}
SHAPES = {
    "laptop": (PRESETS["laptop"], 8),
    "laptop explicit": (replace(PRESETS["laptop"], **EXPLICIT), 8),
    "laptop, batch 1": (PRESETS["laptop"], 1),
    "wide": (PRESETS["laptop-wide"], 2),
    "long explicit": (GPTConfig(2, 4, 64, 512, 256, **EXPLICIT), 1),
    "large vocabulary": (GPTConfig(2, 2, 32, 64, 4000), 2),
    "optimizer is the peak": (GPTConfig(1, 8, 128, 16, 64, bias=False, **EXPLICIT), 2),
    "tied, grouped heads": (GPTConfig(2, 4, 64, 32, 128, 192, 2, tied_embeddings=True), 3),
    "grouped, explicit": (GPTConfig(3, 4, 64, 64, 128, None, 1, **EXPLICIT), 2),
    "one head": (GPTConfig(2, 1, 32, 64, 64, **EXPLICIT), 1),
    "one layer": (GPTConfig(1, 2, 64, 64, 256), 4),
}


@pytest.mark.parametrize("name", SHAPES)
def test_saved_activations_are_predicted_to_the_byte(name):
    config, batch_size = SHAPES[name]
    model = build_gpt(config)
    batch = batch_for(config, batch_size)
    saved = saved_bytes(model, lambda: next_token_loss(model, *batch))
    assert saved == saved_activation_bytes(config, batch_size, config.context_length)


@pytest.mark.parametrize("name", SHAPES)
def test_the_peak_of_a_step_is_predicted_within_half_a_percent(name):
    config, batch_size = SHAPES[name]
    model = build_gpt(config)
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, config, batch_size)
    step()  # Adam's state exists from the second step on
    measured_bytes = measure_memory(step, model, optimizer).peak_bytes
    predicted_bytes = predict_step(config, batch_size).peak_bytes
    assert abs(predicted_bytes / measured_bytes - 1) < 0.005


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_a_sequence_shorter_than_the_context_is_predicted_too(attention):
    config, batch_size, num_tokens = GPTConfig(2, 4, 64, 512, 256, attention=attention), 2, 128
    model = build_gpt(config)
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, config, batch_size, num_tokens)
    step()
    measured_bytes = measure_memory(step, model, optimizer).peak_bytes
    predicted_bytes = predict_step(config, batch_size, num_tokens).peak_bytes
    assert abs(predicted_bytes / measured_bytes - 1) < 0.005


def test_plain_sgd_and_momentum_hold_less():
    config, batch_size = PRESETS["laptop"], 4
    for state_values, momentum in ((0, 0.0), (1, 0.9)):
        model = build_gpt(config)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=momentum)
        step = training_step(model, optimizer, config, batch_size)
        step()
        measured_bytes = measure_memory(step, model, optimizer).peak_bytes
        predicted = predict_step(config, batch_size, state_values=state_values)
        assert abs(predicted.peak_bytes / measured_bytes - 1) < 0.005


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_counted_exactly(preset):
    config = PRESETS[preset]
    model = build_gpt(config, device="meta")
    assert [p.numel() for p in model.parameters()] == tensor_sizes(config)
    assert count_parameters(config).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [n for n, (c, _) in SHAPES.items() if c.attention == "explicit"])
def test_flops_equal_torchs_counter(name):
    config, batch_size = SHAPES[name]
    model = build_gpt(config)
    batch = batch_for(config, batch_size)
    with FlopCounterMode(display=False) as forward_only:
        loss = next_token_loss(model, *batch)
    with FlopCounterMode(display=False) as backward_only:
        loss.backward()
    forward = forward_flops(config, batch_size, config.context_length)
    assert forward_only.get_total_flops() == forward
    both = forward + backward_only.get_total_flops()
    assert both == training_flops(config, batch_size, config.context_length)


def test_the_parts_of_the_flops_add_up():
    config = PRESETS["gpt2-124m"]
    assert sum(flops_by_part(config, 1024).values()) * 1024 == training_flops(config, 1, 1024)


def test_llama_2_70b_against_the_published_arithmetic():
    """Facts: 6ND = 8.4e23, 8.92e23 with attention, 43.5 % MFU from 1,720,320 A100 hours."""
    assert rule_of_thumb_flops(70e9, 2e12) == pytest.approx(8.4e23)
    config = PRESETS["llama2-70b-shape"]
    exact = training_flops(config, 1, 4096) / 4096 * 2e12
    assert exact == pytest.approx(8.92e23, rel=0.005)
    assert exact < 1e24
    assert mfu(8.4e23, 1_720_320 * 3600, 312e12) == pytest.approx(0.435, abs=0.0005)
    assert gpu_hours(1e24, 312e12, 0.435) == pytest.approx(2.05e6, rel=0.01)


def test_recomputed_flops_raise_hfu_only():
    assert mfu(3e9, 1.0, 6e9) == 0.5
    assert hfu(3e9, 1e9, 1.0, 6e9) == pytest.approx(4 / 6)


@pytest.mark.parametrize("bad", [(1e9, 0.0, 1e9), (1e9, 1.0, 0.0)])
def test_utilisation_refuses_zero(bad):
    with pytest.raises(ValueError, match="positive"):
        mfu(*bad)


def test_saved_tensors_are_listed_by_layer_and_counted_once():
    config = GPTConfig(1, 2, 24, 10, 40)  # no weight has the shape of an activation
    model = build_gpt(config)
    batch = batch_for(config, 2)
    kept = saved_for_backward(model, lambda: next_token_loss(model, *batch))
    names = {tensor.layer for tensor in kept}
    assert {"token_embedding", "blocks.0.feed_forward.narrow", "(outside the layers)"} <= names
    weights = {tuple(p.shape) for p in model.parameters() if p.dim() > 1}
    assert not any(tensor.shape in weights for tensor in kept)
    assert not model._forward_hooks and not model._forward_pre_hooks
