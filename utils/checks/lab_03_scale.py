"""Judges of lab 03, the scale: chosen from gradients, and moved by overflows with patience."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.checks.diagnose import require_function, require_value
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_03 import patient_scales, small_gpt_gradients
from utils.techniques.formats import E4M3, E5M2, FP16, NumberFormat

LAB = "lab_03_loss_scaling"
NUM_RANDOM_RUNS = 200


@dataclass(frozen=True)
class ScaleTrial:
    """Gradients, a format, a headroom in doublings, and what is special about them."""

    name: str
    gradients: tuple[Tensor, ...]
    format: NumberFormat
    headroom: int = 0


def _trials() -> list[ScaleTrial]:
    """From the plain case to the edges; each brings out mistakes that those before do not."""
    real = small_gpt_gradients()
    middle = (torch.tensor([1e-3]), torch.tensor([0.3, 2.0**-24]), torch.tensor([[0.01]]))
    broken = (*real, torch.tensor([math.inf, 2.0**-9, -math.inf]), torch.tensor([math.nan]))
    edge = torch.tensor([0.0, 448 * 2.0**-9])
    return [
        ScaleTrial("three gradients, 0.3 the largest value,", middle, FP16),
        ScaleTrial("0.001 and -0.3", (torch.tensor([1e-3, -0.3]),), FP16),
        ScaleTrial("the small GPT's gradients", real, E4M3),
        ScaleTrial("the small GPT's gradients", real, E5M2, 3),
        ScaleTrial("a gradient exactly on the format's edge", (edge,), E4M3),
        ScaleTrial("a gradient just above it", (edge * (1 + 2.0**-22),), E4M3),
        ScaleTrial("gradients of a skipped step among others", broken, FP16, 2),
        ScaleTrial("nothing but zeros", (torch.zeros(3), torch.zeros(2, 2)), FP16, 4),
    ]


@exercise(
    "03.1",
    "a scale for any format",
    hints=[
        "Only the largest size of all finite gradients counts; how many times does it fit into "
        "format.largest, and which power of two is that at most?",
        "2.0 ** (math.floor(math.log2(format.largest / highest)) - headroom), with `highest` a "
        "plain number (.item()), over all tensors, and 1.0 if it is 0.",
    ],
    seconds=60,
    lab=LAB,
)
def judge_scale(answer: Callable) -> str:
    """The largest power of two, for each trial exactly."""
    require_function(answer)
    for trial in _trials():
        got = answer([each.clone() for each in trial.gradients], trial.format, trial.headroom)
        truth = _true_scale(trial)
        what = f"The scale for {trial.name} in {trial.format.name}, headroom {trial.headroom},"
        mistakes = _scale_mistakes(trial, truth)
        require_value(what, got, truth, mistakes, rtol=0.0, in_bytes=False)
    real = [ScaleTrial("", small_gpt_gradients(), each) for each in (FP16, E5M2, E4M3)]
    scales = ", ".join(f"{t.format.name} {_true_scale(t):g}" for t in real)
    return f"Nothing leaves the format, and at twice the scale something does: {scales}."


def _true_scale(trial: ScaleTrial) -> float:
    """Double until something leaves the format: slow, and without a logarithm."""
    values = torch.cat([each.flatten() for each in trial.gradients]).double().abs()
    highest = values[values.isfinite()].max().item() * 2**trial.headroom
    if highest == 0:
        return 1.0
    scale = 2.0**-60
    while highest * 2 * scale <= trial.format.largest:
        scale *= 2
    return scale


def _scale_mistakes(trial: ScaleTrial, truth: float) -> dict[str, float]:
    values = torch.cat([each.flatten() for each in trial.gradients]).double()
    values = values[values.isfinite()]
    if not values.any():
        return {"say 1.0 when there is nothing to scale": 0.0}
    sizes, largest, room = values.abs(), trial.format.largest, 2.0**-trial.headroom
    highest = sizes.max().item()
    first_max = trial.gradients[0].abs().max().item()
    last = trial.gradients[-1][trial.gradients[-1].isfinite()].abs()
    too_large = "round the exponent down, and take the logarithm of a number: fp32's is too rough"
    mistakes = {
        too_large: 2 * truth / room,  # first: near an edge other mistakes lead there as well
        "a power of two is asked; other factors also change the mantissas": largest / highest,
        "a gradient is as large as its size: take abs() before max()": _power(
            largest / values.max().item() if values.max() > 0 else 0.0
        ),
        "the range is the given format's, not always fp16's": _power(FP16.largest / highest),
        "the largest gradient overflows, not the mean one": _power(largest / sizes.mean().item()),
        "this lifts the smallest gradient, and the largest overflows": _power(
            trial.format.smallest_normal / sizes[sizes > 0].min().item()
        ),
        "all gradients count, not the first tensor's only": _power(largest / first_max),
        "all gradients count, not the last tensor's only": (
            _power(largest / last.max().item()) if last.numel() else 0.0
        ),
    }
    mistakes = {mistake: value * room for mistake, value in mistakes.items()}
    if trial.headroom:
        mistakes["the headroom is missing"] = truth / room
        mistakes["headroom lowers the scale"] = truth / room**2
        likely = "headroom counts doublings: 3 means a factor of 2**3"
        mistakes[likely] = _power(largest / highest / trial.headroom)
    return {**mistakes, "a scale twice as large fits, too": truth / 2}


def _power(ratio: float) -> float:
    """The largest power of two that is at most `ratio`."""
    return 2.0 ** (math.frexp(ratio)[1] - 1) if ratio else 0.0


@dataclass(frozen=True)
class Probe:
    """A short run that asks one question: "T" is an overflow, "F" an iteration without."""

    pattern: str
    growth_interval: int
    patience: int
    mistakes: dict[float, str]  # by the last scale, as a multiple of the first


PROBES = (
    Probe("FF", 4, 1, {0.25: "it halves on every step: only an overflow may lower the scale",
                       4.0: "it grows on every quiet step: wait for growth_interval of them"}),
    Probe("T", 4, 1, {1.0: "patience 1 means that the first overflow halves",
                      2.0: "an overflow means that the scale is too large: halve it"}),
    Probe("FFF", 3, 1, {1.0: "it grows too late: the growth_interval-th quiet step doubles"}),
    Probe("FFFF", 3, 1, {4.0: "the growth counter is not reset after growth"}),
    Probe("FFFTF", 4, 1, {1.0: "the growth counter is not reset by an overflow: the row has to "
                          "start anew"}),
    Probe("T", 4, 3, {0.5: "the patience is ignored"}),
    Probe("TTT", 4, 3, {1.0: "it halves too late: the overflow that uses up the last unit halves",
                        0.25: "it halves too early: there was patience left"}),
    Probe("TFT", 4, 2, {1.0: "a quiet step does not restore the patience, only growth does"}),
    Probe("TTTT", 4, 2, {0.25: "halving does not restore the patience, only growth does"}),
    Probe("FFTF", 3, 2, {2.0: "the growth counter is not reset by an overflow that the patience "
                         "absorbs"}),
    Probe("TFFT", 2, 2, {1.0: "growth restores the patience"}),
)  # fmt: skip


@exercise(
    "03.2",
    "a scaler with patience",
    hints=[
        "Three variables change from one iteration to the next: the scale, the number of quiet "
        "iterations in a row, and the patience that is left.",
        "Overflow: quiet = 0, left -= 1, and if left <= 0 halve. Otherwise quiet += 1, and if it "
        "reaches growth_interval: quiet = 0, left = patience, double. Then append the scale.",
    ],
    lab=LAB,
)
def judge_patience(answer: Callable) -> str:
    """The scale after each iteration, on patterns that ask one question each, then on random."""
    require_function(answer)
    for probe in PROBES:
        overflowed = [letter == "T" for letter in probe.pattern]
        _require_scales(answer, overflowed, 1024.0, probe)
    draw, num_overflows = random.Random(3), 0
    for _ in range(NUM_RANDOM_RUNS):
        chance = draw.choice((0.05, 0.3, 0.6))
        overflowed = [draw.random() < chance for _ in range(40)]
        random_probe = Probe("", draw.randint(1, 6), draw.randint(1, 4), {})
        _require_scales(answer, overflowed, 2.0**16, random_probe)
        num_overflows += sum(overflowed)
    return f"Equal on {NUM_RANDOM_RUNS} random runs of 40 iterations, {num_overflows:,} overflows."


def _require_scales(
    answer: Callable, overflowed: Sequence[bool], scale: float, probe: Probe
) -> None:
    settings = scale, probe.growth_interval, probe.patience
    truth, got = patient_scales(overflowed, *settings), answer(list(overflowed), *settings)
    is_list = isinstance(got, (list, tuple)) and len(got) == len(truth)
    what = f"Return one scale for each of {len(truth)} iterations"
    require(is_list, what, got=got, likely="append the scale in every iteration")
    for number, (mine, right) in enumerate(zip(got, truth, strict=True), start=1):
        if not close_to(mine, right, 0.0):
            last = got[-1] / scale if isinstance(got[-1], (int, float)) else 0.0
            what = (
                f"With growth_interval {probe.growth_interval}, patience {probe.patience} and "
                f"overflows {''.join('FT'[o] for o in overflowed[:number])} (T: overflow), "
                f"the scale after iteration {number} is wrong"
            )
            raise NotYet(what, right, mine, probe.mistakes.get(last, ""))
