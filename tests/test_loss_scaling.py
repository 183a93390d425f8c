"""Our scalers beside torch's, step by step, and the mistakes that this comparison rejects."""

import json
import math
import random

import pytest
import torch
from torch import nn

from utils.techniques.loss_scaling import DynamicScaler

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])]
CONSTANTS = [
    {"growth_interval": 1},
    {"growth_interval": 2, "scale": 2.0**10},
    {"growth_interval": 3, "growth_factor": 4.0, "backoff_factor": 0.25},
    {"growth_interval": 4, "scale": 1000.0, "growth_factor": 1.7, "backoff_factor": 0.7},
    {"growth_interval": 5, "scale": 2.0**126},  # two steps from what fp32 can hold
]


class Twin:
    """Two optimizers over tiny parameters, one of them never used, and a scaler."""

    def __init__(self, scaler, device="cpu"):
        generator = torch.Generator().manual_seed(3)
        values = [torch.randn(shape, generator=generator) for shape in [(5,), (2, 3), (4,), (1,)]]
        self.parameters = [nn.Parameter(value.to(device)) for value in values]
        a, b, c, never_used = self.parameters
        sgd = torch.optim.SGD([a, never_used, b], lr=0.01, momentum=0.9)
        self.optimizers = [sgd, torch.optim.AdamW([c], lr=0.01)]
        self.scaler, self.num_updates = scaler, 0
        for optimizer in self.optimizers:
            optimizer.register_step_post_hook(self._count)

    def _count(self, *_):
        self.num_updates += 1

    def iterate(self, plan):
        """One iteration; returns what step() returned for each optimizer."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = sum((p.sin() ** 2).mean() for p in self.parameters[:3])
        self.scaler.scale(loss).backward()
        for position, value in plan["broken"]:
            self.parameters[position].grad.view(-1)[-1] = value
        stepped = []
        for optimizer, clips in zip(self.optimizers, plan["clips"], strict=True):
            if clips:
                self.scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.1)
            stepped.append(self.scaler.step(optimizer))
        self.scaler.update()
        return stepped


def make_plans(seed, num_steps):
    """Calm and rough stretches in turn; inf, -inf or NaN in one or two of the gradients."""
    draw = random.Random(seed)
    for number in range(num_steps):
        rough = draw.random() < (0.5 if number // 20 % 2 else 0.08)
        places = draw.sample(range(3), draw.choice([1, 2])) if rough else []
        broken = [(place, draw.choice([math.inf, -math.inf, math.nan])) for place in places]
        yield {"broken": broken, "clips": [draw.random() < 0.5 for _ in range(2)]}


def assert_follows_torch(scaler, constants, seed=0, num_steps=200, device="cpu", restore=None):
    """Run both twins on the same plans; `restore(ours, theirs)` may replace the scalers halfway."""
    settings = {("init_scale" if k == "scale" else k): v for k, v in constants.items()}
    ours = Twin(scaler, device)
    theirs = Twin(torch.amp.GradScaler(device, **settings), device)
    for number, plan in enumerate(make_plans(seed, num_steps)):
        if restore is not None and number == num_steps // 2:
            ours.scaler, theirs.scaler = restore(ours.scaler, theirs.scaler)
        stepped = ours.iterate(plan)
        theirs.iterate(plan)
        assert ours.num_updates == theirs.num_updates, f"updates differ in step {number}"
        for a, b in zip(ours.parameters, theirs.parameters, strict=True):
            assert torch.equal(a, b), f"weights differ in step {number}"
            same = a.grad is None or torch.allclose(a.grad, b.grad, 0, 0, equal_nan=True)
            assert same, f"gradients differ in step {number}"
        scales = ours.scaler.loss_scale, theirs.scaler.get_scale()
        assert scales[0] == scales[1], f"scale differs in step {number}"
        assert stepped == [not any(p in held for p, _ in plan["broken"]) for held in ((0, 1), (2,))]
    assert ours.scaler.quiet_iterations == theirs.scaler.state_dict()["_growth_tracker"]
    taken, skipped = ours.scaler.num_taken_steps, ours.scaler.num_skipped_steps
    assert (taken, skipped) == (ours.num_updates, 2 * num_steps - ours.num_updates)
    assert min(taken, skipped) > num_steps // 10  # the plans had enough of both


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("constants", CONSTANTS, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_scale_skips_and_weights_equal_torchs_gradscaler(constants, seed, device):
    assert_follows_torch(DynamicScaler(**constants), constants, seed, device=device)


def restore_with(change):
    """Both scalers saved and restored, ours as text and after `change(state)`."""

    def restore(ours, theirs):
        new, reference = DynamicScaler(), torch.amp.GradScaler("cpu")
        new.load_state_dict(change(json.loads(json.dumps(ours.state_dict()))))
        reference.load_state_dict(theirs.state_dict())
        return new, reference

    return restore


@pytest.mark.parametrize("constants", CONSTANTS[2:4], ids=str)
def test_a_saved_and_restored_scaler_goes_on_like_torchs(constants):
    scaler, restore = DynamicScaler(**constants), restore_with(lambda state: state)
    assert_follows_torch(scaler, constants, seed=5, num_steps=190, restore=restore)


@pytest.mark.parametrize("lost", [{"quiet_iterations": 0}, {"loss_scale": 2.0**16}], ids=str)
def test_a_state_that_lost_a_number_is_noticed(lost):
    scaler, restore = DynamicScaler(**CONSTANTS[3]), restore_with(lambda state: state | lost)
    with pytest.raises(AssertionError, match="differ"):
        assert_follows_torch(scaler, CONSTANTS[3], seed=5, num_steps=190, restore=restore)


class HalvesOnEveryStep(DynamicScaler):
    def _adapt(self, overflowed):
        super()._adapt(True)


class KeepsCountingAfterASkip(DynamicScaler):
    def _adapt(self, overflowed):
        before = self.quiet_iterations
        super()._adapt(overflowed)
        self.quiet_iterations = before if overflowed else self.quiet_iterations


class GrowsByTheClock(DynamicScaler):
    clock = 0

    def _adapt(self, overflowed):
        self.clock += 1
        if overflowed or self.clock % self.growth_interval == 0:
            self._multiply(self.backoff_factor if overflowed else self.growth_factor)


class UnscalesTwice(DynamicScaler):
    def step(self, optimizer):
        self._checks.pop(optimizer, None)
        return super().step(optimizer)


class UpdatesDespiteInf(DynamicScaler):
    def step(self, optimizer):
        stepped = super().step(optimizer)
        if not stepped:
            optimizer.step()
        return stepped


class ListensToTheLastOptimizerOnly(DynamicScaler):
    def update(self):
        self._checks = dict([list(self._checks.items())[-1]])
        super().update()


class ChecksAfterClipping(DynamicScaler):
    """Unscales when asked to, but looks for inf only in step: a clipped inf is NaN everywhere."""

    def unscale_(self, optimizer):
        super().unscale_(optimizer)
        self._checks[optimizer].largest = {torch.device("cpu"): torch.tensor(0.0)}


WRONG = {
    HalvesOnEveryStep: "scale differs in step 0",
    KeepsCountingAfterASkip: "scale differs",
    GrowsByTheClock: "scale differs",
    UnscalesTwice: "gradients differ|weights differ",
    UpdatesDespiteInf: "updates differ",
    ListensToTheLastOptimizerOnly: "scale differs",
    ChecksAfterClipping: "updates differ",
}


@pytest.mark.parametrize("interval", [2, 3, 4, 5])
@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_rejects_each_wrong_scaler(wrong, interval):
    constants = {"growth_interval": interval}
    with pytest.raises(AssertionError, match=WRONG[wrong]):
        assert_follows_torch(wrong(**constants), constants)
