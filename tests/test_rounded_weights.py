"""Weights without masters: updates that vanish, by hand and on real text, and the two cures."""

import pytest
import torch

from tests.test_master_weights import DEVICES, Values
from utils.config import GPTConfig
from utils.corpus import load_corpus
from utils.techniques.formats import BF16, E4M3
from utils.techniques.master_weights import RoundedWeights, share_vanished, vanishing_updates


def test_without_masters_a_small_update_vanishes():
    """bf16 lies 2**-7 apart above 1: 0.001 is below half of that, 0.004 is above."""
    model = Values(1.0, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.push(-1e-3)
    for _ in range(1000):
        optimizer.step()
    assert model.weight.item() == 1.0
    model.push(-4e-3)
    optimizer.step()
    assert model.weight.item() == 1.0 + 2**-7


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rounding, share", [("nearest", 1.0), ("stochastic", 0.872)])
def test_stochastic_rounding_keeps_the_mean_and_nearest_keeps_the_weight(rounding, share, device):
    model = Values(*[1.0] * 40_000).to(device)
    rounded = RoundedWeights(model, BF16, rounding)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for step in range(1, 101):
        model.push(-1e-3)
        before = [model.weight.detach().clone()]
        optimizer.step()
        rounded.round_()
        values = model.weight.detach()
        if step == 1:  # 1 - 0.001 / 2**-7 stay where they are
            assert share_vanished(before, [model.weight]) == pytest.approx(share, abs=0.01)
    assert torch.equal(values, values.bfloat16().float())
    mean = float(values.double().mean())
    assert mean == (1.0 if rounding == "nearest" else pytest.approx(1.1, abs=1e-3))


def test_rounding_to_nearest_in_fp32_is_what_a_bf16_model_does():
    start = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    emulated, real = Values(*start.tolist()), Values(*start.tolist(), dtype=torch.bfloat16)
    rounded = RoundedWeights(emulated)
    assert torch.equal(emulated.weight, start.float())
    for model in (emulated, real):
        model.push(2**-9)
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    rounded.round_()
    assert torch.equal(emulated.weight.bfloat16(), real.weight)
    assert 0 < share_vanished([start.float()], [emulated.weight]) < 1


def test_small_updates_vanish_on_real_text_and_the_loss_shows_it():
    corpus, config = load_corpus(max_bytes=100_000), GPTConfig(1, 2, 32, 32)
    runs = vanishing_updates(config, corpus, num_steps=25, batch_size=4)
    vanished = {kind: sum(run.vanished) / 25 for kind, run in runs.items()}
    assert vanished["masters"] < 0.01 < 0.5 < vanished["stochastic"] < vanished["nearest"] < 0.99
    falls = {kind: run.losses[0] - run.losses[-1] for kind, run in runs.items()}
    assert falls["masters"] > 0
    assert falls["nearest"] < 0.8 * falls["masters"]
    assert falls["stochastic"] == pytest.approx(falls["masters"], rel=0.1)
    assert vanishing_updates(config, corpus, num_steps=25, batch_size=4) == runs
    coarse = vanishing_updates(config, corpus, 2, format=E4M3, batch_size=4)["nearest"]
    assert coarse.vanished[0] > runs["nearest"].vanished[0]


def test_the_weights_are_on_the_grid_from_the_start_and_stay_there():
    model = Values(1.0, 1.001, 1 / 3)
    rounded = RoundedWeights(model, BF16, "stochastic")
    assert model.weight.tolist() == [1.0, 1.0, 0.333984375]  # nearest: no chance at the start
    for _ in range(5):
        rounded.round_()
    assert model.weight.tolist() == [1.0, 1.0, 0.333984375]


def test_bad_input_is_one_clear_sentence():
    with pytest.raises(ValueError, match="rounding must be one of"):
        RoundedWeights(Values(1.0), rounding="up")
    with pytest.raises(ValueError, match="give it an fp32 model"):
        RoundedWeights(Values(1.0, dtype=torch.bfloat16))
