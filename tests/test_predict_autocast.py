"""The bill of autocast, to the byte: activations, weight copies, FLOPs, what stays."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers import batch_for
from utils.config import GPTConfig
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.predict import saved_activation_bytes
from utils.predict_autocast import autocast_saved_bytes, weight_copy_bytes
from utils.saved import saved_bytes, saved_for_backward
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CPU_RULES, CUDA_RULES

SHAPES = {
    "fused": (GPTConfig(2, 2, 32, 32, 64), 3),
    "explicit": (GPTConfig(2, 2, 32, 32, 64, attention="explicit"), 3),
    "grouped": (GPTConfig(1, 4, 32, 16, 64, 96, 2), 2),
    "no bias": (GPTConfig(1, 2, 16, 16, 300, bias=False, attention="explicit"), 2),
    "tied": (GPTConfig(2, 2, 16, 16, 64, tied_embeddings=True), 2),
}


def loss_under(rules, model, batch):
    with ManualAutocast(rules):
        return next_token_loss(model, *batch)


@pytest.mark.parametrize("rules", [CPU_RULES, CUDA_RULES], ids=lambda rules: rules.device)
@pytest.mark.parametrize("name", SHAPES)
def test_saved_bytes_under_autocast_are_predicted_exactly(name, rules):
    config, batch_size = SHAPES[name]
    model, batch = build_gpt(config), batch_for(config, batch_size)
    found = saved_bytes(model, lambda: loss_under(rules, model, batch))
    tokens, is_cuda = config.context_length, rules is CUDA_RULES
    assert found == autocast_saved_bytes(config, batch_size, tokens, softmax_in_fp32=is_cuda)


def test_torchs_autocast_keeps_the_same_bytes():
    config, batch_size = SHAPES["explicit"]
    model, batch = build_gpt(config), batch_for(config, batch_size)

    def theirs():
        with torch.autocast("cpu", torch.bfloat16):
            return next_token_loss(model, *batch)

    found = saved_bytes(model, theirs)
    assert found == autocast_saved_bytes(config, batch_size, config.context_length)


def test_weights_are_copied_not_halved():
    config, batch_size = SHAPES["fused"]
    model, batch = build_gpt(config), batch_for(config, batch_size)
    kept = saved_for_backward(model, lambda: loss_under(CPU_RULES, model, batch))
    shapes = {tuple(p.t().shape) for p in model.parameters() if p.dim() == 2}
    copies = [t for t in kept if t.shape in shapes and t.dtype == torch.bfloat16]
    assert sum(t.num_bytes for t in copies) == weight_copy_bytes(config)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_what_stays_does_not_change():
    """Parameters, gradients and Adam: 16 bytes per parameter with and without autocast."""
    config, batch_size = SHAPES["fused"]
    held = []
    for enabled in (False, True):
        model, batch = build_gpt(config), batch_for(config, batch_size)
        adam = torch.optim.AdamW(model.parameters())
        with MemoryMeter(model, adam) as meter:
            with ManualAutocast(enabled=enabled):
                loss = next_token_loss(model, *batch)
            loss.backward()
            adam.step()
            meter.mark("end")
        bill = meter.report().at_mark("end")
        held.append([bill[k] for k in ("parameters", "gradients", "optimizer state")])
    assert held[0] == held[1]


def test_a_small_batch_keeps_more_bytes_with_autocast_than_without():
    """When it does not pay: the weight copies outweigh the halved activations."""
    config = GPTConfig(1, 2, 64, 8, 64)
    assert autocast_saved_bytes(config, 1, 8) > saved_activation_bytes(config, 1, 8)
    assert autocast_saved_bytes(config, 64, 8) < saved_activation_bytes(config, 64, 8)


def test_flops_are_the_same():
    config, batch_size = SHAPES["explicit"]
    counts = []
    for enabled in (False, True):
        model, batch = build_gpt(config), batch_for(config, batch_size)
        with FlopCounterMode(display=False) as counter:
            with ManualAutocast(enabled=enabled):
                loss = next_token_loss(model, *batch)
            loss.backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
