"""Lab 03's checks: the solution passes, the stub is not attempted, wrong answers are named."""

import math
import sysconfig

import pytest
import torch
from torch.nn.utils import get_total_norm

from tests.lab_checks import LabChecks
from tests.lab_source import solution_functions
from tests.wrong_answers_03 import WRONG
from tests.wrong_builders_03 import twice_by_the_scaler
from utils.checks.engine import judge
from utils.checks.lab_03_fused import PassCounter, extra_bytes
from utils.checks.truth_03 import drift, patient_scales, small_gpt_gradients
from utils.techniques.loss_scaling import DynamicScaler

LAB = "lab_03_loss_scaling"
ANSWERS = {
    "03.1": "choose_scale",
    "03.2": "scales_with_patience",
    "03.3": "unscale_check_clip_",
    "03.4": "training_step",
    "03.5": "o2_bytes",
}
right = solution_functions(LAB)


class TestLab03(LabChecks):
    lab, answers, right, wrong = LAB, ANSWERS, right, WRONG
    least_wrong = 3


def other_way_to_fuse(parameters, loss_scale, max_norm):
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = get_total_norm(gradients).item() / loss_scale
    if math.isfinite(norm):
        torch._foreach_mul_(gradients, min(max_norm / max(norm, 1e-30), 1.0) / loss_scale)
    return norm


def other_way_to_choose(gradients, format, headroom):
    scale, sizes = 2.0**100, torch.cat([g[g.isfinite()].flatten() for g in gradients]).abs()
    while sizes.any() and (sizes.double() * scale * 2**headroom).max() > format.largest:
        scale /= 2
    return scale if sizes.any() else 1.0


OTHERS = [("03.1", other_way_to_choose), ("03.3", other_way_to_fuse)]


@pytest.mark.parametrize("key, answer", OTHERS)
def test_another_right_answer_passes(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


def test_unscaling_twice_with_the_scaler_is_told_in_its_own_words():
    outcome = judge("03.4", twice_by_the_scaler)
    assert outcome.status == "raised" and "Already unscaled" in outcome.message


def test_without_patience_the_rule_is_the_lessons_scaler():
    generator = torch.Generator().manual_seed(0)
    overflowed = (torch.rand(300, generator=generator) < 0.2).tolist()
    scaler, scales = DynamicScaler(2.0**16, growth_interval=4), []
    for has_inf in overflowed:
        scaler._adapt(has_inf)
        scales.append(scaler.loss_scale)
    assert patient_scales(overflowed, 2.0**16, 4, patience=1) == scales


def test_the_colleagues_loop_drifts_and_the_solution_does_not():
    assert drift(right["colleagues_step"]) > 0.5
    assert drift(right["training_step"]) < 1e-5


def test_passes_are_counted_by_memory_not_by_name():
    gradients = [torch.ones(8, 8), torch.ones(4)]
    with PassCounter(gradients) as counter:
        torch._foreach_norm(gradients)
        torch._foreach_mul_(gradients, 0.5)
        gradients[0].detach().view(-1).norm()
    assert (counter.reads, counter.writes) == ([2, 1], [1, 1])


def test_a_copy_of_a_gradient_is_seen_by_the_meter():
    gradient = torch.ones(64, 64)
    assert extra_bytes(lambda: gradient * 2, [gradient]) == gradient.nbytes
    assert extra_bytes(lambda: gradient.mul_(2), [gradient]) < 64


def test_the_small_gpt_reads_the_same_text_on_every_python(monkeypatch):
    """Its scales are compared: the standard library, another text on each Python, is not read."""
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": "no such folder"})
    highest = max(gradient.abs().max().item() for gradient in small_gpt_gradients.__wrapped__())
    for largest in (65504, 57344, 448):  # nor does another order of adding change a power of two
        assert 0.05 < math.log2(largest / highest) % 1 < 0.95
