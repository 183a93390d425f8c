"""The scalers at their limits: exactness, every format, misuse, and how often the host waits."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers import batch_for
from utils.config import GPTConfig
from utils.model import build_gpt, next_token_loss
from utils.techniques.loss_scaling import APEX, TORCH, DynamicScaler, StaticScaler

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])]


def one_parameter(gradient, lr=1.0):
    parameter = nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient
    return parameter, torch.optim.SGD([parameter], lr=lr)


@pytest.mark.parametrize("power", [-20, 1, 16, 24])
def test_a_power_of_two_leaves_every_gradient_bit_equal(power):
    config = GPTConfig(2, 2, 32, 16, 64)
    plain, scaled = build_gpt(config), build_gpt(config)
    batch, scaler = batch_for(config, 2), StaticScaler(2.0**power)
    next_token_loss(plain, *batch).backward()
    scaler.scale(next_token_loss(scaled, *batch)).backward()
    ratios = {float((b.grad / a.grad).nanmedian()) for a, b in pairs(plain, scaled)}
    assert ratios == {2.0**power}
    scaler.unscale_(torch.optim.SGD(scaled.parameters()))
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs(plain, scaled))


def pairs(first, second):
    return zip(first.parameters(), second.parameters(), strict=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("device", DEVICES)
def test_one_bad_value_is_found_in_every_format_wherever_it_stands(dtype, bad, device):
    largest = torch.finfo(dtype).max
    for place in (None, 0, 500, 999):
        gradient = torch.full((1000,), largest, dtype=dtype, device=device)  # its sum is inf
        if place is not None:
            gradient[place] = bad
        parameter, optimizer = one_parameter(gradient)
        assert StaticScaler(4.0).step(optimizer) == (place is None)
        assert bool(parameter.detach().any()) == (place is None)
    assert parameter.grad.dtype == dtype and float(parameter.grad[1]) == largest / 4


@pytest.mark.parametrize("scale", [1000.0, 3.7, 2.0**24, 0.3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_round_like_in_torchs_own_kernel(dtype, scale):
    gradient = (torch.randn(4099, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    expected, inverse = gradient.clone(), torch.tensor(scale).double().reciprocal().float()
    torch._amp_foreach_non_finite_check_and_unscale_([expected], torch.zeros(()), inverse)
    _, optimizer = one_parameter(gradient)
    StaticScaler(scale).unscale_(optimizer)
    assert torch.equal(gradient, expected)


class CountReads(TorchDispatchMode):
    """How often the host asked a tensor for its value."""

    num_reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num_reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_waits_once_for_an_optimizer_not_for_each_gradient():
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(20)]
    for parameter in parameters:
        parameter.grad = torch.ones(3)
    scaler, optimizer = DynamicScaler(), torch.optim.SGD(parameters)
    with CountReads() as unscaling:
        scaler.unscale_(optimizer)
    with CountReads() as stepping:
        scaler.step(optimizer)
        scaler.update()
    assert (unscaling.num_reads, stepping.num_reads) == (0, 1)


def scale_after(scaler, pattern):
    """The scale after iterations that are quiet (.) or overflow (x)."""
    for mark in pattern:
        _, optimizer = one_parameter(torch.tensor([math.inf if mark == "x" else 1.0]))
        scaler.step(optimizer)
        scaler.update()
    return scaler.loss_scale


def test_the_constants_of_apex_and_of_torch():
    apex, theirs = DynamicScaler(**APEX), DynamicScaler(**TORCH)
    for scaler in (apex, theirs):
        assert scale_after(scaler, "x") == 2.0**15
        assert scale_after(scaler, "." * 1999) == 2.0**15
        assert scale_after(scaler, ".") == 2.0**16
        scaler.growth_interval = 1
    assert scale_after(apex, "." * 12) == 2.0**24  # APEX stops here
    assert scale_after(theirs, "." * 12) == 2.0**28  # torch does not
    reference = torch.amp.GradScaler("cpu").state_dict()
    assert theirs.growth_factor == reference["growth_factor"] == apex.growth_factor
    assert theirs.backoff_factor == reference["backoff_factor"] == apex.backoff_factor
    assert DynamicScaler(**TORCH).loss_scale == reference["scale"]
    assert DynamicScaler(**TORCH).growth_interval == reference["growth_interval"]


def test_limits_hold_and_fp32_is_one():
    assert scale_after(DynamicScaler(8, smallest=2), "xxxxx") == 2
    assert scale_after(DynamicScaler(8, largest=12, growth_interval=1), "..") == 12
    assert scale_after(DynamicScaler(2.0**126, growth_interval=1), "....") == 2.0**127
    with pytest.raises(FloatingPointError, match="at any scale"):
        scale_after(DynamicScaler(), "x" * 143)
    assert scale_after(DynamicScaler(), "x" * 142) == 2.0**-126


def test_a_static_scale_stays_and_counts():
    scaler = StaticScaler(128)
    assert scale_after(scaler, "..x.x") == 128
    assert (scaler.num_taken_steps, scaler.num_skipped_steps) == (3, 2)
    other = StaticScaler(2)
    other.load_state_dict(scaler.state_dict())
    assert vars(other) == vars(scaler)


def test_a_16_bit_loss_is_scaled_in_fp32():
    scaled = DynamicScaler().scale(torch.tensor(3.0, dtype=torch.float16))
    assert scaled.dtype == torch.float32 and float(scaled) == 3 * 2.0**16


def test_clipping_before_unscaling_would_give_other_weights():
    results = []
    for first in ("unscale", "clip"):
        parameter, optimizer = one_parameter(torch.tensor([3.0, 4.0]) * 1024)
        scaler = StaticScaler(1024)
        if first == "unscale":
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([parameter], 1.0)
        scaler.step(optimizer)
        results.append(parameter.detach())
    torch.testing.assert_close(results[0], torch.tensor([-0.6, -0.8]))
    torch.testing.assert_close(results[1], results[0] / 1024)


def test_misuse_is_one_clear_sentence():
    scaler = DynamicScaler()
    parameter, optimizer = one_parameter(torch.ones(2))
    with pytest.raises(RuntimeError, match="call step first"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="Already unscaled: call unscale_ once"):
        scaler.unscale_(optimizer)
    assert scaler.step(optimizer)
    for again in (scaler.step, scaler.unscale_):
        with pytest.raises(RuntimeError, match=r"update\(\)"):
            again(optimizer)
    with pytest.raises(RuntimeError, match=r"save the scaler after update\(\)"):
        scaler.state_dict()
    assert torch.equal(parameter.grad, torch.full((2,), 2.0**-16))  # divided once, not more
    scaler.update()
    parameter.grad = None
    with pytest.raises(RuntimeError, match="no gradients"):
        scaler.step(optimizer)
    with pytest.raises(ValueError, match=r"restored from .*growth_factor"):
        scaler.load_state_dict(StaticScaler(2).state_dict())


def test_a_sparse_gradient_is_refused_before_any_other_is_touched():
    dense, optimizer = one_parameter(torch.ones(2))
    sparse = nn.Parameter(torch.zeros(2, 2))
    sparse.grad = torch.eye(2).to_sparse()
    optimizer.add_param_group({"params": [sparse]})
    with pytest.raises(ValueError, match="Sparse gradients are left out"):
        StaticScaler(2.0).step(optimizer)
    assert torch.equal(dense.grad, torch.ones(2))


@pytest.mark.parametrize(
    "constants",
    [
        {"scale": 0.0}, {"scale": -2.0}, {"scale": math.inf}, {"scale": math.nan},
        {"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"backoff_factor": 0.0},
        {"growth_interval": 0}, {"largest": 2.0}, {"smallest": 2.0**17},
    ],
    ids=str,
)  # fmt: skip
def test_constants_that_cannot_work_are_refused(constants):
    with pytest.raises(ValueError, match=r"must|Give"):
        DynamicScaler(**constants)
