"""Masters against an fp32 run, their bytes against the recipe, and their state."""

import io

import pytest
import torch
from torch import nn

from tests.helpers import batch_for
from utils.config import GPTConfig
from utils.costs import RECIPES
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.techniques.loss_scaling import DynamicScaler, StaticScaler
from utils.techniques.master_weights import MasterWeights

TINY = GPTConfig(2, 2, 32, 16, 64)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])]
LOW = [torch.bfloat16, torch.float16]


class Values(nn.Module):
    """A model that is nothing but its weights."""

    def __init__(self, *values, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values, dtype=dtype))

    def push(self, gradient):
        """As if a backward pass had left this gradient."""
        self.weight.grad = torch.full_like(self.weight, gradient)


def low_run(model, masters, optimizer, num_steps):
    """Train the low-precision model; returns the gradients that its masters were given."""
    seen = []
    for _ in range(num_steps):
        batch = batch_for(TINY, 2, device=masters.parameters()[0].device)
        next_token_loss(model, *batch).backward()
        seen.append({name: p.grad.clone() for name, p in model.named_parameters()})
        masters.collect_gradients()
        optimizer.step()
        optimizer.zero_grad()
        masters.copy_to_model()
    return seen


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("low_dtype", LOW, ids=str)
def test_masters_equal_an_fp32_optimizer_with_the_same_gradients(low_dtype, device):
    model, reference = build_gpt(TINY).to(device), build_gpt(TINY).to(device)
    masters = MasterWeights(model, low_dtype)
    assert {p.dtype for p in model.parameters()} == {low_dtype}
    gradients = low_run(model, masters, torch.optim.AdamW(masters.parameters(), 1e-3), 5)
    optimizer = torch.optim.AdamW(reference.parameters(), 1e-3)
    for step in gradients:
        for name, parameter in reference.named_parameters():
            assert step[name].dtype == low_dtype
            parameter.grad = step[name].float()
        optimizer.step()
    for name, parameter in reference.named_parameters():
        assert torch.equal(masters.masters[name], parameter), name
        assert torch.equal(model.get_parameter(name), parameter.to(low_dtype)), name


def test_masters_taken_from_the_low_copies_would_differ():
    """The named mistake: every step starts again from the rounded weights."""
    results = []
    for mistaken in (False, True):
        model = Values(1.0)
        masters = MasterWeights(model)
        optimizer = torch.optim.SGD(masters.parameters(), lr=1.0)
        for _ in range(8):
            model.push(-1e-3)
            masters.collect_gradients()
            if mistaken:
                masters.masters["weight"].data.copy_(model.weight.data)
            optimizer.step()
            optimizer.zero_grad()
            masters.copy_to_model()
        results.append(model.weight.item())
    assert results == [1.0 + 2**-7, 1.0]


def test_the_bytes_are_the_recipes_and_the_meter_agrees():
    model = build_gpt(GPTConfig(2, 2, 64, 16, 64))
    num_parameters = sum(p.numel() for p in model.parameters())
    masters = MasterWeights(model)
    optimizer = torch.optim.AdamW(masters.parameters())
    with MemoryMeter(model, optimizer) as meter:
        next_token_loss(model, *batch_for(TINY, 2)).backward()
        low_gradients = masters.num_bytes(optimizer)["gradients"]
        masters.collect_gradients()
        optimizer.step()
        masters.copy_to_model()
    recipe = next(r for r in RECIPES if r.name == "bf16 weights, fp32 gradients and master, Adam")
    num_tensors = len(masters.parameters())
    held = masters.num_bytes(optimizer)
    assert low_gradients == 2 * num_parameters
    assert held == {
        "weights": recipe.weight_bytes * num_parameters,
        "gradients": recipe.gradient_bytes * num_parameters,
        "fp32 masters": recipe.master_bytes * num_parameters,
        "optimizer state": recipe.optimizer_bytes * num_parameters + 4 * num_tensors,
    }
    seen = {name: int(values[-1]) for name, values in meter.report().timeline.items()}
    assert seen["optimizer state"] == held["optimizer state"]
    assert seen["parameters"] == held["weights"]


@pytest.mark.parametrize("low_dtype", LOW, ids=str)
def test_a_saved_run_goes_on_bit_by_bit_but_not_from_the_low_weights(low_dtype):
    whole, parts, lossy = build_gpt(TINY), build_gpt(TINY), build_gpt(TINY)
    masters = MasterWeights(whole, low_dtype)
    optimizer = torch.optim.SGD(masters.parameters(), 0.01, momentum=0.9)
    low_run(whole, masters, optimizer, 3)
    file = io.BytesIO()
    torch.save((masters.state_dict(), optimizer.state_dict(), whole.state_dict()), file)
    file.seek(0)
    saved, saved_optimizer, saved_low = torch.load(file)
    low_run(whole, masters, optimizer, 3)
    results = []
    for model, from_masters in ((parts, True), (lossy, False)):
        if not from_masters:
            model.load_state_dict(saved_low)
        again = MasterWeights(model, low_dtype)
        resumed = torch.optim.SGD(again.parameters(), 0.01, momentum=0.9)
        resumed.load_state_dict(saved_optimizer)
        if from_masters:
            again.load_state_dict(saved)
        low_run(model, again, resumed, 3)
        pairs = zip(again.parameters(), masters.parameters(), strict=True)
        results.append(all(torch.equal(a, b) for a, b in pairs))
    assert results == [True, False]


def test_a_scaled_fp16_gradient_survives_in_the_master_and_dies_if_unscaled_in_fp16():
    small = 2.0**-26  # below fp16's smallest number, 2**-24
    kept = []
    for use_masters in (True, False):
        model, scaler = Values(0.0, dtype=torch.float16), StaticScaler(2.0**16)
        masters = MasterWeights(model, torch.float16)
        updated = masters.parameters() if use_masters else list(model.parameters())
        scaler.scale((model.weight.float() * small).sum()).backward()
        if use_masters:
            masters.collect_gradients()
        optimizer = torch.optim.SGD(updated, lr=1.0)
        assert scaler.step(optimizer)
        kept.append(float(updated[0].grad))
    assert kept == [small, 0.0]


def test_gradients_of_several_calls_add_up_in_fp32_and_free_the_low_ones():
    model = Values(1.0)
    masters = MasterWeights(model)
    for gradient in (1.0, 2.0**-9, 2.0**-9):  # each small one is lost in bf16
        model.push(gradient)
        masters.collect_gradients()
        assert model.weight.grad is None
    masters.collect_gradients()  # nothing new
    assert masters.parameters()[0].grad.item() == 1 + 2.0**-8


def test_an_overflow_leaves_masters_and_copies_alone():
    model, scaler = Values(1.5, -2.0), DynamicScaler()
    masters = MasterWeights(model, torch.float16)
    optimizer = torch.optim.AdamW(masters.parameters())
    scaler.scale((model.weight.float() * 10).sum()).backward()  # 65536 x 10 is inf in fp16
    masters.collect_gradients()
    assert not scaler.step(optimizer)
    masters.copy_to_model()
    assert masters.parameters()[0].tolist() == model.weight.tolist() == [1.5, -2.0]


def test_frozen_and_shared_weights():
    model = build_gpt(GPTConfig(1, 2, 16, 8, 32, tied_embeddings=True))
    model.position_embedding.weight.requires_grad_(False)
    masters = MasterWeights(model)
    assert "position_embedding.weight" not in masters.masters
    assert model.position_embedding.weight.dtype == torch.bfloat16
    assert model.output.weight is model.token_embedding.weight
    assert "token_embedding.weight" in masters.masters and "output.weight" not in masters.masters


def test_bad_input_is_one_clear_sentence():
    with pytest.raises(ValueError, match="low_dtype must be one of"):
        MasterWeights(Values(1.0), torch.int8)
    with pytest.raises(ValueError, match="of another model"):
        MasterWeights(Values(1.0)).load_state_dict(MasterWeights(Values(1.0, 2.0)).state_dict())
